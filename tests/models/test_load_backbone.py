"""A backbone's weights from another run: what is read, what is left out, what is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lookaround.errors import CheckpointError
from lookaround.models import create_model, load_backbone, save_model
from lookaround.models.checkpoint import RECORD_NAME, WEIGHTS_NAME

BACKBONE = {"width": 0.125, "num_heads": 2, "small": False}
TINY = {**BACKBONE, "num_classes": 3, "pyramid_channels": 16}
DETECTOR = "sasa_retinanet_resnet14_small"


def classifier(name: str = "sasa_resnet14_small", **overrides: object) -> nn.Module:
    model = create_model(name, **{**BACKBONE, "num_classes": 7, **overrides})
    model.train()(torch.randn(4, 3, 32, 32))  # moves the statistics of the batch norms
    return model


@pytest.fixture
def run(tmp_path: Path) -> Path:
    save_model(classifier(), tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("inside", ["", WEIGHTS_NAME, RECORD_NAME])
def test_a_detector_starts_from_a_classifier(run: Path, inside: str) -> None:
    model = create_model(DETECTOR, **TINY)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    load_backbone(model, run / inside)
    theirs = load_file(run / WEIGHTS_NAME)
    for key, value in model.state_dict().items():
        expected = theirs[key.removeprefix("backbone.body.")] if "body" in key else before[key]
        assert torch.equal(value, expected), key


def test_weights_may_come_from_a_detector_or_from_another_stem_reach(tmp_path: Path) -> None:
    """An attention stem's weights are the same whether it keeps the resolution or not."""
    other = create_model(DETECTOR, **{**TINY, "num_classes": 5, "heads": "convolution"})
    save_model(other, tmp_path / "detector")
    save_model(classifier(small=True), tmp_path / "small")
    model = create_model(DETECTOR, **TINY)
    for name in ("detector", "small"):
        load_backbone(model, str(tmp_path / name))
        theirs = load_file(tmp_path / name / WEIGHTS_NAME)
        key = "layer4.0.conv1.weight"
        assert torch.equal(
            model.backbone.body.state_dict()[key], theirs.get(f"backbone.body.{key}", theirs.get(key))
        )


def test_a_classifier_keeps_its_last_layer(run: Path) -> None:
    model = create_model("sasa_resnet14_small", **BACKBONE, num_classes=2)
    last = model.fc.weight.clone()
    load_backbone(model, run)
    assert torch.equal(model.fc.weight, last)
    assert torch.equal(model.stem.value_weight, load_file(run / WEIGHTS_NAME)["stem.value_weight"])


def test_a_file_of_another_name_needs_no_record(run: Path, tmp_path: Path) -> None:
    tensors = load_file(run / WEIGHTS_NAME)
    save_file(tensors, tmp_path / "backbone.safetensors")
    model = create_model(DETECTOR, **TINY)
    load_backbone(model, tmp_path / "backbone.safetensors")
    assert torch.equal(model.backbone.body.stem.value_weight, tensors["stem.value_weight"])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"depths": (1, 2, 1, 1)}, r"missing: layer2\.1\.conv1\.weight"),
        ({"width": 0.25}, r"layer1\.0\.bn1\.bias: expected \(16,\); actual: \(8,\)"),
        ({"stem": "convolution"}, r"missing: stem\.conv\.weight"),
        ({"border": "zeros"}, "border: expected 'zeros'; actual: 'mask'"),
        ({"position": "none"}, r"not in the model: layer1\.0\.spatial\.row_embedding"),
        ({"num_heads": 1}, "row_embedding: expected"),
    ],
)
def test_a_backbone_of_another_kind_is_named_and_changes_nothing(
    run: Path, overrides: dict, words: str
) -> None:
    model = create_model(DETECTOR, **{**TINY, **overrides})
    before = {key: value.clone() for key, value in model.state_dict().items()}
    must = rf"load_backbone: the weights must have the backbone of {DETECTOR}; got .*safetensors\."
    with pytest.raises(CheckpointError, match=rf"{must}\n(.|\n)*{words}(.|\n)*hint: make the model with"):
        load_backbone(model, run)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_missing_or_damaged_weights_are_named(run: Path, tmp_path: Path) -> None:
    model = create_model(DETECTOR, **TINY)
    with pytest.raises(CheckpointError, match=r"load_backbone: the weights file must exist; got .*nowhere"):
        load_backbone(model, tmp_path / "nowhere")
    (run / WEIGHTS_NAME).write_bytes(b"short")
    with pytest.raises(CheckpointError, match="load_backbone: the weights must be a whole safetensors file"):
        load_backbone(model, run)


def test_a_record_of_a_model_that_cannot_be_made_is_named(run: Path) -> None:
    record = run / RECORD_NAME
    record.write_text(record.read_text().replace('"mask"', '"wrap"'))
    with pytest.raises(
        CheckpointError, match=r"model\.json must describe a model that can be made: create_model"
    ):
        load_backbone(create_model(DETECTOR, **TINY), run)
