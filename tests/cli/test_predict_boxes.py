"""Detectors on the command line: a table, pictures, COCO's json, and what is refused."""

import json

import pytest
import torch
from PIL import Image

from lookaround import create_model
from lookaround.cli.main import main
from lookaround.data.detection_preprocessing import DetectionPreprocessing
from lookaround.models import save_model
from lookaround.models.retinanet import RetinaNet

TINY = {"width": 0.125, "num_heads": 2, "pyramid_channels": 8, "head_depth": 1, "num_classes": 2}
PREPROCESSING = DetectionPreprocessing(64, 3, (0.5,) * 3, (0.25,) * 3)


@pytest.fixture
def weights(tmp_path):
    folder = tmp_path / "run"
    model = create_model("sasa_retinanet_resnet14_small", **TINY)
    save_model(
        model,
        folder,
        preprocessing=PREPROCESSING.to_dict(),
        class_names=["cat", "dog"],
        category_ids=[17, 90],
    )
    return folder


@pytest.fixture
def finds(monkeypatch):
    """Let every network find a dog in the left half, a cat in the right half, and a shadow of a cat."""

    def found(self, images):
        results = []
        for image in images:
            height, width = image.shape[1:]
            boxes = [[0, 0, width / 2, height], [width / 2, 0, width, height / 2], [0, 0, 2, 2]]
            scores, labels = torch.tensor([0.9, 0.75, 0.2]), torch.tensor([1, 0, 0])
            results.append({"boxes": torch.tensor(boxes), "labels": labels, "scores": scores})
        return results

    monkeypatch.setattr(RetinaNet, "forward", found)


def paint(path, size=(200, 100), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, "gray" if mode == "RGB" else None).save(path)
    return path


def call(weights, *words):
    return main(["predict", "--weights", str(weights), *map(str, words)])


def test_the_table_tells_boxes_in_pixels_of_the_image(weights, finds, tmp_path, capsys):
    file = paint(tmp_path / "a.png")
    assert call(weights, file) == 0
    assert capsys.readouterr().out.splitlines() == [
        str(file),
        "  dog   90.0 %  0,0 to 100,100",
        "  cat   75.0 %  100,0 to 200,50",
    ]
    assert call(weights, "--score", "0.95", file) == 0
    assert capsys.readouterr().out.splitlines() == [str(file), "  nothing found"]


def test_json_tells_everything(weights, finds, tmp_path, capsys):
    files = [paint(tmp_path / "a.png"), paint(tmp_path / "b" / "tall.png", (30, 60))]
    assert call(weights, "--json", "--score", "0.1", tmp_path / "a.png", tmp_path / "b") == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["image"] for row in document["images"]] == [str(file) for file in files]
    tall = document["images"][1]
    assert (tall["width"], tall["height"]) == (30, 60)
    assert [entry["label"] for entry in tall["detections"]] == ["dog", "cat", "cat"]
    assert tall["detections"][0]["box"] == pytest.approx([0, 0, 15, 60])
    assert tall["detections"][0]["score"] == pytest.approx(0.9)
    assert "picture" not in tall


def test_pictures_and_cocos_json_are_left_in_the_folder(weights, finds, tmp_path, capsys):
    files = [paint(tmp_path / "in" / "a.png"), paint(tmp_path / "in" / "more" / "a.jpg", (40, 30))]
    out = tmp_path / "new" / "out"
    assert call(weights, "--out", out, "--json", tmp_path / "in") == 0
    pictures = [row["picture"] for row in json.loads(capsys.readouterr().out)["images"]]
    assert pictures == [str(out / "a.png"), str(out / "a-2.png")]
    with Image.open(out / "a.png") as drawn:
        assert len(drawn.getcolors(1 << 20)) > 3
    results = json.loads((out / "detections.json").read_text())
    assert results[0] == {
        "image_id": 1,
        "category_id": 90,
        "bbox": pytest.approx([0, 0, 100, 100]),
        "score": pytest.approx(0.9),
    }
    document = json.loads((out / "images.json").read_text())
    assert [image["file_name"] for image in document["images"]] == [str(file) for file in files]
    assert document["categories"] == [{"id": 17, "name": "cat"}, {"id": 90, "name": "dog"}]
    assert sorted(path.name for path in out.iterdir()) == [
        "a-2.png",
        "a.png",
        "detections.json",
        "images.json",
    ]


def test_the_two_json_files_are_read_by_cocos_tools(weights, finds, tmp_path):
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    assert call(weights, "--out", tmp_path / "out", paint(tmp_path / "a.png")) == 0
    truth = coco.COCO(str(tmp_path / "out" / "images.json"))
    found = truth.loadRes(str(tmp_path / "out" / "detections.json"))
    assert len(found.getAnnIds(imgIds=[1])) == 2


def test_bad_images_are_named_skipped_and_counted(weights, finds, tmp_path, capsys):
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    assert call(weights, "--json", "--out", tmp_path / "out", bad, paint(tmp_path / "a.png")) == 1
    output = capsys.readouterr()
    document = json.loads(output.out)
    assert [row["image"] for row in document["skipped"]] == [str(bad)]
    assert "1 of 2 skipped" in output.err
    assert [
        image["id"] for image in json.loads((tmp_path / "out" / "images.json").read_text())["images"]
    ] == [1]


def test_a_real_network_and_images_of_any_mode(weights, tmp_path, capsys):
    files = [paint(tmp_path / f"{mode}.png", (50, 40), mode) for mode in ("L", "RGBA", "1")]
    assert call(weights, "--score", "0", "--json", "--batch-size", "2", *files) == 0
    assert len(json.loads(capsys.readouterr().out)["images"]) == 3


def test_numbers_that_are_none_are_refused(weights, tmp_path, capsys, monkeypatch):
    def broken(self, images):
        nothing = {"boxes": torch.full((1, 4), torch.nan), "labels": torch.tensor([0])}
        return [nothing | {"scores": torch.ones(1)} for _ in images]

    monkeypatch.setattr(RetinaNet, "forward", broken)
    assert call(weights, paint(tmp_path / "a.png")) == 2
    assert "the network must give finite numbers; got NaN or infinity" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--score", "1.5"], "--score must be from 0 to 1; got 1.5"),
        (["--top", "3"], "--top must be left out for weights of a detector"),
        (["--out", "FILE"], "--out must be a folder; got the file"),
    ],
)
def test_wrong_options_are_one_line(weights, tmp_path, capsys, options, words):
    file = paint(tmp_path / "a.png")
    assert call(weights, *(str(file) if word == "FILE" else word for word in options), file) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_options_of_a_detector_are_refused_for_a_classifier(tmp_path, capsys):
    model = create_model("resnet14_small", width=0.125, num_classes=2)
    save_model(model, tmp_path / "run", preprocessing=PREPROCESSING.to_dict(), class_names=["a", "b"])
    assert call(tmp_path / "run", "--score", "0.5", "--out", "x", paint(tmp_path / "a.png")) == 2
    assert "--score and --out must be left out for weights of a classifier" in capsys.readouterr().err


def test_a_record_without_preprocessing_is_refused(weights, tmp_path, capsys):
    record = json.loads((weights / "model.json").read_text())
    (weights / "model.json").write_text(json.dumps(record | {"preprocessing": {"image_size": 64}}))
    assert call(weights, paint(tmp_path / "a.png")) == 2
    assert "must say how images are prepared" in capsys.readouterr().err


def test_without_names_and_ids_there_are_numbers(weights, finds, tmp_path, capsys):
    record = json.loads((weights / "model.json").read_text())
    (weights / "model.json").write_text(json.dumps(record | {"class_names": [], "category_ids": []}))
    assert call(weights, "--json", paint(tmp_path / "a.png")) == 0
    first = json.loads(capsys.readouterr().out)["images"][0]["detections"][0]
    assert (first["label"], first["category_id"]) == ("class 1", 1)


def test_a_folder_that_cannot_be_written_is_refused(weights, finds, tmp_path, capsys):
    file = paint(tmp_path / "a.png")
    assert call(weights, "--out", file / "inside", file) == 2
    assert "--out must be writable" in capsys.readouterr().err
