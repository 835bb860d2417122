"""Parameters and FLOPs: the exact counts, every figure the paper prints, and what the counters count."""

import functools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lookaround.errors import ArgumentError
from lookaround.models import Costs, ResNetConfig, create_model, model_costs
from lookaround.models.paper_rows import HELD_OUT, IMAGE_SIZE, PAPER_ROWS, VALIDATION, Row
from lookaround.models.resnet import ResNet
from lookaround.models.variants import VARIANTS

EXACT_PARAMETERS = [
    ("resnet26", {}, 13_696_552),
    ("resnet38", {}, 19_626_792),
    ("resnet50", {}, 25_557_032),
    ("sasa_resnet26_convstem", {}, 10_331_264),
    ("sasa_resnet38_convstem", {}, 14_173_384),
    ("sasa_resnet50_convstem", {}, 18_015_504),
    ("sasa_resnet50_convstem", {"content": False}, 16_758_032),
    ("sasa_resnet50_convstem", {"position": "none"}, 18_012_200),
    ("sasa_resnet50_convstem", {"position": "absolute"}, 18_012_200),
]
FULL_PARAMETERS = [("sasa_resnet26", 10.32), ("sasa_resnet38", 14.17), ("sasa_resnet50", 18.007)]


def named(rows: tuple[Row, ...]) -> list[str]:
    return [f"{row.table}: {row.label}" for row in rows]


def make(name: str, **overrides) -> ResNet:
    """Make a model without memory for its weights."""
    with torch.device("meta"):
        return create_model(name, **overrides)


@functools.cache
def costs_of(config: ResNetConfig, size: int) -> Costs:
    with torch.device("meta"):
        return model_costs(ResNet(config), size)


def costs_of_row(row: Row) -> Costs:
    """Count each network once, in however many tables it stands."""
    overrides = row.overrides | {"name": "any"}
    values = {**vars(VARIANTS[row.model]), **overrides}
    return costs_of(ResNetConfig(**values), IMAGE_SIZE)


@pytest.mark.parametrize(("name", "overrides", "parameters"), EXACT_PARAMETERS)
def test_parameters_are_exactly_these(name: str, overrides: dict, parameters: int) -> None:
    model = make(name, **overrides)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize(("name", "millions"), FULL_PARAMETERS)
def test_parameters_of_full_attention(name: str, millions: float) -> None:
    model = make(name)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize("row", PAPER_ROWS, ids=named(PAPER_ROWS))
def test_every_printed_figure_is_met(row: Row) -> None:
    costs = costs_of_row(row)
    assert costs.paper_flops / 1e9 == pytest.approx(row.flops_billions, abs=row.flops_tolerance)
    if row.parameters_millions is not None:
        parameters = costs.parameters / 1e6
        assert parameters == pytest.approx(row.parameters_millions, abs=row.parameters_tolerance)
    convolves = row.model == "resnet50" or row.overrides.get("attention_stages") == ()
    factorised = row.overrides.get("position", "relative") == "relative"
    if row.model.startswith("resnet") or convolves or not factorised:
        assert costs.executed_flops == costs.paper_flops  # there is no q·r to factorise
    else:
        assert costs.executed_flops < costs.paper_flops


def test_every_row_of_the_tables_is_there_once() -> None:
    counts: dict[str, int] = {}
    for row in PAPER_ROWS:
        counts[row.table] = counts.get(row.table, 0) + 1
    expected = {"Table 1": 9, "Table 3": 8, "Table 4": 5, "Table 5": 3, "Table 6": 2, "Table 7": 3}
    assert counts == {**expected, "Figure 5": 15}
    assert len(set(named(PAPER_ROWS))) == len(PAPER_ROWS)


def test_accuracies_on_different_images_are_told_apart() -> None:
    for row in PAPER_ROWS:
        assert row.measured_on == (HELD_OUT if row.table in ("Table 3", "Table 5") else VALIDATION)
        assert 70 < row.top1_percent < 82


def test_rows_allow_for_rounding_and_for_reading_off_a_plot() -> None:
    allowed = {(row.table == "Figure 5", row.flops_tolerance, row.parameters_tolerance) for row in PAPER_ROWS}
    assert allowed == {(False, 0.15, 0.1), (True, 0.35, 0.3)}


@pytest.mark.parametrize("name", ["resnet14_small", "sasa_resnet14_convstem_small", "sasa_resnet14_small"])
def test_counting_changes_nothing(name: str) -> None:
    model = create_model(name, num_classes=3, in_channels=1, width=0.25)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    first = model_costs(model, 28)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert model_costs(model, (28, 28)) == first == model_costs(model.double().eval(), 28)


@pytest.mark.parametrize("size", [(32, 32), (30, 17)])
def test_the_convolutional_count_is_torchs_own(size: tuple[int, int]) -> None:
    model = create_model("resnet14_small", width=0.25, num_classes=10).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        features = model.features(torch.zeros(1, 3, *size))
        model(torch.zeros(1, 3, *size))
    once = counter.get_total_flops()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.features(torch.zeros(1, 3, *size))
    once -= counter.get_total_flops()
    norms: list[int] = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, out: norms.append(3 * out.numel()))
        for module in model.modules()
        if isinstance(module, torch.nn.BatchNorm2d)
    ]
    model(torch.zeros(1, 3, *size))
    for hook in hooks:
        hook.remove()
    assert features["layer4"].shape[1] == 512
    assert model_costs(model, size).executed_flops == once + sum(norms)


def test_a_larger_batch_or_grey_images_cost_what_they_should() -> None:
    grey, colour = (model_costs(make("resnet50", in_channels=n), 224) for n in (1, 3))
    assert colour.paper_flops - grey.paper_flops == 2 * 2 * 64 * 7 * 7 * 112 * 112
    assert colour.parameters - grey.parameters == 2 * 64 * 7 * 7


def test_frozen_parameters_do_not_count() -> None:
    model = make("resnet26")
    model.fc.requires_grad_(False)
    assert model_costs(model, 64).parameters == 13_696_552 - 2048 * 1000 - 1000


def test_costs_do_not_depend_on_the_backend() -> None:
    costs = [
        model_costs(make("sasa_resnet14_small", width=0.25, backend=name), 28)
        for name in ("auto", "reference")
    ]
    assert costs[0] == costs[1]


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize("size", [0, -1, (28, 0), "28", (1, 2, 3)])
def test_sizes_that_cannot_be_used_are_named(size: object) -> None:
    with pytest.raises(ArgumentError, match="model_costs: image_size must be an integer >= 1, or a pair"):
        model_costs(make("resnet14_small"), size)
