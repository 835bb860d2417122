"""Weights that come with the package: what they reach, and models that begin with them."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

import lookaround
from lookaround.errors import ArgumentError, CheckpointError, UnknownNameError
from lookaround.models import list_pretrained, load_backbone, load_model, record
from lookaround.models.checkpoint import read_tensors, save_model
from lookaround.models.pretrained import adapt_channels, default_tag
from lookaround.models.record import SHIPPED, find_files, read_record, shipped_tags
from lookaround.models.variants import create_model

TAGS = shipped_tags()
DETECTOR = "sasa_retinanet_resnet14_convstem_small"
TINY = {"width": 0.125, "num_heads": 2, "in_channels": 1}
TINY_DETECTOR = TINY | {"pyramid_channels": 8, "head_depth": 1}


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the package have three small sets of weights."""
    folder = tmp_path / "weights"
    for module in ("record", "pretrained"):
        monkeypatch.setattr(f"lookaround.models.{module}.SHIPPED", folder)
    for tag, name, options in (
        ("boxes", DETECTOR, TINY_DETECTOR | {"num_classes": 3}),
        ("letters", "sasa_resnet14_small", TINY | {"num_classes": 4}),
        ("numbers", "sasa_resnet14_small", TINY | {"num_classes": 5}),
    ):
        save_model(create_model(name, **options).half(), folder / tag, class_names=["a", "b"])
    return folder


@pytest.mark.parametrize("tag", TAGS)
def test_what_ships_is_small_described_and_loads(tag: str) -> None:
    folder = SHIPPED / tag
    assert sorted(path.name for path in folder.iterdir()) == ["card.md", "model.json", "weights.safetensors"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2_000_000
    model, loaded = load_model(tag)
    assert not model.training
    assert len(loaded.class_names) == model.config.num_classes
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())
    card = (folder / "card.md").read_text(encoding="utf-8")
    figures = {key: value for key, value in loaded.metrics.items() if key.startswith("test_")}
    stated = json.loads(re.findall(r"^model-index: (.*)$", card, re.M)[0])[0]["results"][0]["metrics"]
    assert figures
    assert [entry["value"] for entry in stated] == list(figures.values())
    assert "apache-2.0" in card


@pytest.mark.skipif("digits" not in TAGS, reason="no such weights come with the package")
def test_digits_are_read_as_well_as_the_card_says() -> None:
    from lookaround.data.digits import load
    from lookaround.data.source import Settings

    parts = load(Settings())
    test = parts.test.dataset(parts.preprocessing)
    model, loaded = load_model("digits")
    images, labels = test.__getitems__(list(range(len(test))))
    with torch.inference_mode():
        right = (model(images).argmax(1) == labels).float()
    # One digit on the border between two classes may fall to either side on another processor.
    assert right.mean().item() == pytest.approx(loaded.metrics["test_accuracy"], abs=1.1 / 359)


def test_a_model_begins_with_the_weights_of_a_tag(shipped: Path) -> None:
    model = lookaround.create_model("sasa_resnet14_small", pretrained="numbers")
    assert model.training
    assert (model.config.num_classes, model.config.width) == (5, 0.125)
    tensors = read_tensors("test", shipped / "numbers" / "weights.safetensors")
    assert all(torch.equal(value, tensors[key].to(value.dtype)) for key, value in model.state_dict().items())


def test_true_is_the_first_tag_of_the_model(shipped: Path) -> None:
    assert list_pretrained() == {"boxes": DETECTOR, "letters": model_of("l"), "numbers": model_of("n")}
    assert default_tag("sasa_resnet14_small") == "letters"
    assert create_model("sasa_resnet14_small", pretrained=True).config.num_classes == 4
    assert create_model(DETECTOR, pretrained=True).config.num_classes == 3
    assert create_model("sasa_resnet14_small", pretrained=False).config.num_classes == 1000


def model_of(tag: str) -> str:
    return "sasa_resnet14_small"


def test_what_was_trained_for_and_how_may_be_changed(shipped: Path) -> None:
    options = {"backend": "reference", "drop_path": 0.1}
    model = create_model("sasa_resnet14_small", pretrained="letters", **options)
    assert (model.config.backend, model.config.drop_path) == ("reference", 0.1)
    detector = create_model(DETECTOR, pretrained="boxes", score_threshold=0.3)
    assert detector.score_thresh == 0.3


@pytest.mark.parametrize(
    ("name", "tag", "left"),
    [("sasa_resnet14_small", "letters", "fc.bias, fc.weight"), (DETECTOR, "boxes", "predict.bias, head")],
)
def test_other_classes_get_new_last_layers(shipped: Path, name: str, tag: str, left: str) -> None:
    with pytest.warns(
        UserWarning, match=f"num_classes is not that of the weights: .*{left}.* begin at random"
    ):
        model = create_model(name, pretrained=tag, num_classes=7)
    assert model.config.num_classes == 7
    tensors = read_tensors("test", shipped / tag / "weights.safetensors")
    same = {key for key, value in model.state_dict().items() if value.shape == tensors[key].shape}
    assert len(tensors) - len(same) == 2
    assert all(
        torch.equal(model.state_dict()[key], tensors[key].to(torch.float32)) for key in same - integers(model)
    )


def integers(model: torch.nn.Module) -> set[str]:
    return {key for key, value in model.state_dict().items() if not value.is_floating_point()}


def test_another_network_is_refused(shipped: Path) -> None:
    with pytest.raises(
        ArgumentError, match=r"leave the network that 'letters' was trained with as it is; got 2 other\."
    ) as caught:
        create_model("sasa_resnet14_small", pretrained="letters", width=0.25, border="zeros")
    assert "  width: expected 0.125; actual: 0.25" in str(caught.value)
    assert "  border: expected 'mask'; actual: 'zeros'" in str(caught.value)
    with pytest.raises(UnknownNameError, match="overrides must be known; got 'widht'"):
        create_model("sasa_resnet14_small", pretrained="letters", widht=1)


def test_weights_that_are_not_there_are_named(shipped: Path) -> None:
    with pytest.raises(
        UnknownNameError,
        match=r"of a model whose weights come with the package; got 'resnet26'\.(.|\n)*boxes",
    ):
        create_model("resnet26", pretrained=True)
    with pytest.raises(
        UnknownNameError,
        match=r"tag of weights of sasa_resnet14_small; got 'number'\.\nhint: did you mean 'numbers'",
    ):
        create_model("sasa_resnet14_small", pretrained="number")


def test_a_package_without_weights_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("record", "pretrained"):
        monkeypatch.setattr(f"lookaround.models.{module}.SHIPPED", tmp_path)
    assert list_pretrained() == {}
    with pytest.raises(UnknownNameError, match="make it without, and train it"):
        create_model("resnet26", pretrained=True)


def test_weights_that_are_not_those_of_their_record_are_refused(shipped: Path) -> None:
    other = create_model("resnet14_small", num_classes=4, **TINY)
    save_model(other, shipped / "other")
    shutil.move(shipped / "other" / "weights.safetensors", shipped / "letters" / "weights.safetensors")
    with pytest.raises(
        CheckpointError, match=r"must be those of sasa_resnet14_small; got others\.\n  missing"
    ):
        create_model("sasa_resnet14_small", pretrained="letters")


@pytest.mark.parametrize("stem", ["attention", "convolution"])
@pytest.mark.parametrize("values", ["spatially_aware", "plain", "convolution"])
def test_grey_images_give_what_their_copies_gave(stem: str, values: str) -> None:
    options = TINY | {"stem": stem, "stem_values": values, "num_classes": 3}
    colour = create_model("sasa_resnet14_small", **options | {"in_channels": 3}).eval()
    grey = create_model("sasa_resnet14_small", **options | {"in_channels": 1}).eval()
    grey.load_state_dict(adapt_channels(colour.state_dict(), 1))
    images = torch.randn(2, 1, 9, 9)
    torch.testing.assert_close(grey(images), colour(images.expand(-1, 3, -1, -1)))
    again = create_model("sasa_resnet14_small", **options | {"in_channels": 3}).eval()
    again.load_state_dict(adapt_channels(grey.state_dict(), 3))
    torch.testing.assert_close(again(images.expand(-1, 3, -1, -1)), grey(images))


def test_other_channels_adapt_the_first_layer(shipped: Path) -> None:
    grey = create_model("sasa_resnet14_small", pretrained="letters").eval()
    colour = create_model("sasa_resnet14_small", pretrained="letters", in_channels=3).eval()
    images = torch.randn(2, 1, 9, 9)
    torch.testing.assert_close(colour(images.expand(-1, 3, -1, -1)), grey(images))
    assert create_model(DETECTOR, pretrained="boxes", in_channels=3).config.in_channels == 3


def test_a_model_without_numbers_stays_without(shipped: Path) -> None:
    with torch.device("meta"):
        model = create_model("sasa_resnet14_small", pretrained="letters")
    assert all(p.is_meta for p in model.parameters())


def test_a_tag_is_a_name_for_its_folder(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, loaded = load_model("numbers")
    assert (model.config.num_classes, loaded.class_names) == (5, ["a", "b"])
    detector = create_model(DETECTOR, **TINY_DETECTOR)
    with pytest.raises(CheckpointError, match="the weights must have the backbone"):
        load_backbone(detector, "numbers")
    load_backbone(detector, "boxes")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "numbers").mkdir()  # of images, as it may be
    assert find_files("numbers").record == shipped / "numbers" / "model.json"
    save_model(create_model("resnet14_small", **TINY), "numbers")
    assert read_record("numbers").name == "resnet14_small"


def test_the_hint_names_what_ships(shipped: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="that come with the package: boxes, letters, numbers"):
        load_model(tmp_path / "nowhere")
    assert shipped == record.SHIPPED
