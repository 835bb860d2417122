"""The detectors of the benchmark: who takes part, what they cost, and that folding changes nothing."""

import pytest
import torch

from lookaround.cli.main import main
from lookaround.models import create_model, model_costs
from lookaround.studies import detectors
from lookaround.studies.agreement import check_agreement

CPU, FLOAT = torch.device("cpu"), torch.float32
QUICK = detectors.detector_names(quick=True)


def test_every_row_of_table_2_takes_part_behind_torchvision() -> None:
    assert detectors.detector_names(quick=False) == [
        "torchvision retinanet_resnet50_fpn",
        "convolution heads, baseline",
        "convolution heads, conv stem + attention",
        "convolution heads, full attention",
        "attention heads, conv stem + attention",
        "attention heads, full attention",
    ]
    assert QUICK[1:] == [f"small {name}" for name in detectors.detector_names(quick=False)[1:]]


def test_parameters_of_torchvisions_are_those_that_it_states() -> None:
    """It states 34,014,999 for 91 classes, with batch norms that do not learn."""
    one_class_less, norms = 9 * (9 * 256 + 1), 53_120
    expected = 34_014_999 - one_class_less + norms
    assert detectors.count_parameters("torchvision retinanet_resnet50_fpn", 640) == expected


def test_flops_are_counted_alike() -> None:
    """By torch's counter for torchvision's detector, by formula for ours; equal where both can count."""
    form = detectors.FORMS["small convolution heads, baseline"]
    ours = create_model(form.model, **form.overrides)
    assert detectors.executed_flops(form.name, 64) == model_costs(ours, 64).executed_flops
    less, more = (detectors.executed_flops(QUICK[0], size) for size in (64, 128))
    assert 3.9 < more / less < 4.1


@pytest.mark.parametrize("name", [QUICK[0], QUICK[3], QUICK[5]])
def test_a_folded_detector_computes_the_same(name: str) -> None:
    eager = detectors.settle(detectors.make_detector(name, 64))
    folded = detectors.fold(eager)
    norms = [m for m in detectors.body_of(folded).modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms == []
    images = detectors.make_images(2, 64, CPU, FLOAT)
    maps = [detectors.pyramid_maps(model, torch.stack(images)) for model in (folded, eager)]
    check_agreement(name, maps[0], maps[1])
    found = detectors.detect(folded, images)()
    assert [set(boxes) for boxes in found] == [{"boxes", "labels", "scores"}] * 2


@pytest.mark.parametrize("name", [QUICK[0], QUICK[5]])
def test_a_training_step_moves_weights_a_little(name: str) -> None:
    model = detectors.make_detector(name, 64)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    step = detectors.training_step(model, detectors.make_images(2, 64, CPU, FLOAT))
    assert all(torch.isfinite(step()) for _ in range(2))
    moved = [(now - then).abs().max() for now, then in zip(model.parameters(), before, strict=True)]
    assert 0 < max(moved) < 0.1


def test_targets_lie_in_the_image() -> None:
    for target in detectors.make_targets(detectors.make_images(3, 64, CPU, FLOAT)):
        boxes = target["boxes"]
        assert boxes.shape == (detectors.OBJECTS, 4)
        assert ((boxes >= 0) & (boxes <= 64)).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= 8).all()


def test_an_image_that_would_be_padded_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "detection", "--quick", "--image-size", "100"]) == 2
    assert "--image-size of detection must be a multiple of 32; got 100" in capsys.readouterr().err
