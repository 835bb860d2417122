"""Detectors: parameters and FLOPs of every row of Table 2, and what the counters count."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lookaround.models import Costs, create_model, model_costs
from lookaround.models.paper_detection_rows import (
    IMAGE_SIZE,
    NUM_CLASSES,
    PAPER_DETECTION_ROWS,
    TEXT_ROWS,
    DetectionRow,
)


def costs_of(row: DetectionRow) -> Costs:
    with torch.device("meta"):
        model = create_model(row.model, **row.overrides)
    assert model.config.num_classes == NUM_CLASSES
    return model_costs(model, IMAGE_SIZE)


def named(rows: tuple[DetectionRow, ...]) -> list[str]:
    return [row.label for row in rows]


@pytest.mark.parametrize("row", PAPER_DETECTION_ROWS[:3], ids=named(PAPER_DETECTION_ROWS[:3]))
def test_rows_with_convolutional_heads_are_met(row: DetectionRow) -> None:
    costs = costs_of(row)
    assert costs.parameters / 1e6 == pytest.approx(row.parameters_millions, abs=0.05)
    assert costs.paper_flops / 1e9 == pytest.approx(row.flops_billions, abs=1)


@pytest.mark.parametrize("row", PAPER_DETECTION_ROWS[3:], ids=named(PAPER_DETECTION_ROWS[3:]))
def test_rows_with_attention_are_met_by_attention_in_the_heads_alone(row: DetectionRow) -> None:
    """The printed FLOPs lie between the two ways of counting."""
    costs = costs_of(row)
    assert costs.parameters / 1e6 == pytest.approx(row.parameters_millions, abs=0.05)
    assert costs.executed_flops / 1e9 <= row.flops_billions <= costs.paper_flops / 1e9
    assert costs.executed_flops / 1e9 == pytest.approx(row.flops_billions, abs=2)


@pytest.mark.parametrize("row", TEXT_ROWS, ids=named(TEXT_ROWS))
def test_attention_in_the_pyramid_too_is_counted(row: DetectionRow) -> None:
    costs = costs_of(row)
    assert costs.parameters / 1e6 == pytest.approx(row.parameters_millions, abs=0.05)
    assert costs.executed_flops / 1e9 == pytest.approx(row.flops_billions, abs=0.5)


def test_attention_saves_what_the_abstract_says() -> None:
    """39 % of the FLOPs and 34 % of the parameters, of the printed rows."""
    baseline, full = PAPER_DETECTION_ROWS[0], PAPER_DETECTION_ROWS[-1]
    assert 1 - full.flops_billions / baseline.flops_billions == pytest.approx(0.39, abs=0.01)
    assert 1 - full.parameters_millions / baseline.parameters_millions == pytest.approx(0.34, abs=0.01)


def test_every_row_is_there_once() -> None:
    rows = (*PAPER_DETECTION_ROWS, *TEXT_ROWS)
    assert len({row.label for row in rows}) == len(rows) == 7
    assert all(row.map_percent is None or row.map_percent[0] < row.map_percent[1] for row in rows)


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_the_convolutional_count_is_torchs_own(norm: str) -> None:
    model = create_model("retinanet_resnet14_small", num_classes=3, norm=norm).eval()
    images, norms = torch.zeros(1, 3, 64, 96), []
    counted = [m for m in model.modules() if isinstance(m, (nn.BatchNorm2d, nn.LayerNorm))]
    hooks = [m.register_forward_hook(lambda m, x, out: norms.append(3 * out.numel())) for m in counted]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.network(images)
    for hook in hooks:
        hook.remove()
    assert model_costs(model, (64, 96)).executed_flops == counter.get_total_flops() + sum(norms)


def test_counting_changes_nothing() -> None:
    model = create_model("sasa_retinanet_resnet14_small", num_classes=3).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert model_costs(model, 64) == model_costs(model.double(), (64, 64))
    assert model.training
    assert all(torch.equal(value, before[key].to(value.dtype)) for key, value in model.state_dict().items())
