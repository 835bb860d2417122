"""`lookaround maps`: its files, its numbers, what it skips and what it refuses."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lookaround.cli.main import main
from lookaround.cli.maps_view import Viewer
from lookaround.data.detection_preprocessing import DetectionPreprocessing
from lookaround.data.preprocessing import Preprocessing
from lookaround.explorer import attention_distances, attention_of_pixels, attention_rollout
from lookaround.models.checkpoint import load_model, save_model
from lookaround.models.variants import create_model

GREY = Preprocessing(8, 1, (0.5,), (0.5,))
TINY = {"width": 0.25, "kernel_size": 3, "num_heads": 2, "num_classes": 2}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    model = create_model("sasa_resnet14_small", in_channels=1, **TINY)
    save_model(model, tmp_path / "run", preprocessing=GREY.to_dict(), class_names=["a", "b"])
    return tmp_path / "run"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return paint(tmp_path / "images" / "bright.png", (20, 16), (5, 9))


def paint(path: Path, size: tuple[int, int], white: tuple[int, int]) -> Path:
    picture = Image.new("L", size, "black")
    picture.putpixel(white, 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path


def call(weights: Path, *arguments: object) -> int:
    out = weights.parent / "maps"
    return main(["maps", "--weights", str(weights), "--out", str(out), *map(str, arguments)])


def test_pictures_of_weights_rollout_and_distances(weights, image, capsys) -> None:
    out = weights.parent / "maps"
    assert call(weights, image, "--rollout", "--layer", "layer[34].*") == 0
    names = ["bright_weights.png", "bright_rollout.png", "distances.png"]
    assert capsys.readouterr().out.splitlines() == [str(out / name) for name in names]
    assert sorted(os.listdir(out)) == sorted(names)
    for name in names:
        with Image.open(out / name) as picture:
            assert picture.format == "PNG"
            assert np.asarray(picture.convert("L")).std() > 10


def test_numbers_are_those_of_the_library(weights, image, capsys, undrawn, monkeypatch) -> None:
    monkeypatch.setattr("lookaround.explorer.rollout_figure.draw_rollout", lambda *given, **_: given[3])
    arguments = ["--json", "--npz", "--rollout", "--query", "7,10", "--layer", "layer2.*", "--head", 2]
    assert call(weights, image, *arguments) == 0
    document = json.loads(capsys.readouterr().out)
    (row,) = document["images"]
    assert row["query"] == {
        "image_size": [8, 8],
        "row": 5,
        "column": 2,
    }  # 10 and 5 after the centre crop of 16
    model, record = load_model(weights)
    batch = Preprocessing.from_dict(record.preprocessing).evaluation()(Image.open(image))[None]
    (maps,) = attention_of_pixels(model, batch, [(5, 2)], layers=["layer2.*"])
    (shown,) = row["layers"]
    assert (shown["name"], shown["heads"], shown["query"]) == ("layer2.0.spatial", [2], [5, 2])
    np.testing.assert_allclose(shown["weights"], maps.weights[0, 0, 1:], rtol=1e-5)
    (distance,) = attention_distances(model, batch, layers=["layer2.*"])
    assert document["distances"][0]["on_image"] == pytest.approx(distance.on_image.tolist())
    assert document["skipped"] == []
    assert [Path(file).name for file in document["files"]] == [
        *("bright_weights.png", "bright_rollout.png", "bright.npz", "distances.png")
    ]
    with np.load(row["files"][-1]) as arrays:
        assert len(arrays.files) == 2 + 5
        np.testing.assert_allclose(arrays["weights/layer2.0.spatial"], maps.weights[0, 0], rtol=1e-5)
        assert arrays["query/layer2.0.spatial"].tolist() == [5, 2]
        (rollout,) = attention_rollout(model, batch, [(5, 2), None], layers=["layer3"])
        np.testing.assert_allclose(arrays["rollout/layer3.0"], rollout.shares[0], rtol=1e-4, atol=1e-8)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Note the pictures instead of drawing them."""
    noted: list[Path] = []

    def note(shown: object, path: Path, **options: object) -> Path:
        noted.append(path)
        return path

    monkeypatch.setattr("lookaround.explorer.figures.draw_pixel_maps", note)
    monkeypatch.setattr("lookaround.explorer.distance_figure.draw_distances", note)
    return noted


def test_a_detector_is_shown_whole_pictures(tmp_path, capsys, undrawn) -> None:
    model = create_model("sasa_retinanet_resnet14_small", pyramid_channels=8, in_channels=1, **TINY)
    preprocessing = DetectionPreprocessing(64, 1, (0.5,), (0.5,))
    save_model(model, tmp_path / "run", preprocessing=preprocessing.to_dict(), class_names=["a", "b"])
    picture = paint(tmp_path / "wide.png", (128, 90), (0, 0))
    assert call(tmp_path / "run", picture, "--query", "127,89", "--json", "--npz") == 0
    document = json.loads(capsys.readouterr().out)
    (row,) = document["images"]
    assert row["query"] == {"image_size": [45, 64], "row": 44, "column": 63}
    calls = [(layer["name"], layer["call"]) for layer in row["layers"]]
    assert ("backbone.pyramid.spatial.0", 0) in calls
    assert ("head.boxes.last", 2) in calls
    # Two pictures of weights for more than twelve layers.
    assert [path.name for path in undrawn] == [
        *("wide_weights.png", "wide_weights-2.png", "wide_weights-3.png", "distances.png")
    ]
    with np.load(tmp_path / "maps" / "wide.npz") as arrays:
        assert {"weights/head.boxes.last", "weights/head.boxes.last/3"} <= set(arrays.files)


def test_folders_are_searched_and_names_kept_apart(weights, image, undrawn, capsys) -> None:
    paint(image.parent / "inner" / "bright.png", (8, 8), (1, 1))
    (image.parent / "empty").mkdir()
    assert call(weights, image.parent, image.parent / "empty", image.parent / "none.png") == 1
    assert [path.name for path in undrawn] == ["bright_weights.png", "bright-2_weights.png", "distances.png"]
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].endswith("empty: the folder holds no images")
    assert "none.png: open_image: the image file must exist" in errors[1]


def test_an_image_without_the_query_is_skipped(weights, image, undrawn, capsys) -> None:
    small = paint(image.parent / "small.png", (4, 4), (0, 0))
    assert call(weights, image, small, "--query", "8,8") == 1
    assert [path.name for path in undrawn] == ["bright_weights.png", "distances.png"]
    expected = "small.png: maps: --query must lie within the picture of 4x4 pixels; got 8,8."
    assert expected in capsys.readouterr().err
    assert call(weights, image, "--query", "0,8", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["images"] == document["distances"] == document["files"] == []
    assert "must lie in the part of the picture that the network is shown" in document["skipped"][0]["reason"]


@pytest.mark.parametrize("size", [(8, 8), (40, 30), (17, 50), (100, 9), (200, 6), (5, 4)])
@pytest.mark.parametrize("crop_fraction", [1.0, 0.8])
def test_a_query_is_found_in_what_the_network_is_shown(size, crop_fraction) -> None:
    """A bright block of the picture is bright where its centre is looked for."""
    preprocessing = Preprocessing(16, 1, (0.0,), (1.0,), crop_fraction)
    viewer = Viewer(None, preprocessing, "cpu")
    width, height = size
    reach = max(1, min(size) // 6)
    x, y = width // 2 + min(size) // 5, height // 2 - min(size) // 5
    picture = torch.zeros(height, width, dtype=torch.uint8)
    picture[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1] = 255
    shown = viewer.prepare(Image.fromarray(picture.numpy()))
    row, column = viewer.locate(x, y, size)
    assert shown[0, row, column] > 0.9
    bright = (shown[0] > 0.5).nonzero().float().mean(0)
    step = 16 / crop_fraction / min(size)
    assert (bright - torch.tensor([row, column])).abs().max() <= max(1.0, 0.75 * step)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--query", "3"], "--query must be a column and a row, two whole numbers; got '3'."),
        (["--query", "-3,4"], "argument --query: expected one argument"),
        (["--head", "5"], "--head must be from 1 to 4; got 5."),
        (["--head", "0"], "--head must be from 1 to 4; got 0."),
        (
            ["--layer", "layer9"],
            "layers must be names or patterns of attention layers of the model; got 'layer9'.",
        ),
    ],
)
def test_arguments_that_cannot_be_used_are_one_line(weights, image, capsys, arguments, words) -> None:
    assert call(weights, image, *arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_there_must_be_an_image_and_a_folder_to_write_to(weights, image, capsys) -> None:
    (weights.parent / "empty").mkdir()
    assert call(weights, weights.parent / "empty") == 2
    assert "there must be at least one image; got none." in capsys.readouterr().err
    (weights.parent / "maps").write_text("a file")
    assert call(weights, image) == 2
    assert "--out must be a folder; got the file" in capsys.readouterr().err


def test_a_network_without_attention_is_refused(tmp_path, image, capsys) -> None:
    model = create_model("resnet14_small", width=0.25, in_channels=1, num_classes=2)
    save_model(model, tmp_path / "run", preprocessing=GREY.to_dict(), class_names=["a", "b"])
    assert call(tmp_path / "run", image) == 2
    assert "model must hold a LocalAttention2d or an AttentionStem; got ResNet." in capsys.readouterr().err


def test_weights_without_preprocessing_or_with_nan_are_refused(tmp_path, image, capsys) -> None:
    model = create_model("sasa_resnet14_small", in_channels=1, **TINY)
    save_model(model, tmp_path / "run")
    assert call(tmp_path / "run", image) == 2
    assert "the weights' record must say how images are prepared; got this:" in capsys.readouterr().err
    with torch.no_grad():
        model.layer1[0].spatial.projection.weight.fill_(torch.nan)
    save_model(model, tmp_path / "run", preprocessing=GREY.to_dict())
    assert call(tmp_path / "run", image) == 2
    assert "the network must give finite numbers; got NaN or infinity." in capsys.readouterr().err


def test_a_device_that_is_not_there_is_refused(weights, image, capsys, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert call(weights, image, "--device", "cuda") == 2
    assert "--device cuda must be a device that is there; got no CUDA device." in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_one_line(weights, image, capsys, monkeypatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    assert call(weights, image, "--layer", "stem") == 2
    error = capsys.readouterr().err
    assert "--out must be writable; got" in error
    assert "No space left" in error
