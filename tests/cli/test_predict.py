import argparse
import io
import json
import os
import sys
import types
from pathlib import Path

import pytest
import torch
from PIL import Image

from lookaround.cli import predict
from lookaround.cli.main import main
from lookaround.data.preprocessing import Preprocessing
from lookaround.errors import ArgumentError, CheckpointError, DataError
from lookaround.models.checkpoint import save_model
from lookaround.models.variants import create_model

CLASSES = ["black", "grey", "white"]


class Brightness(torch.nn.Module):
    """Knows black, grey and white pictures apart."""

    def __init__(self, factor: float = 10.0) -> None:
        super().__init__()
        self.factor = factor
        self.batches: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(images))
        mean = images.mean((1, 2, 3))
        return torch.stack([-(mean - level).abs() for level in (0.0, 0.5, 1.0)], 1) * self.factor


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Brightness:
    network = Brightness()
    record = types.SimpleNamespace(
        preprocessing=Preprocessing(8, 1, (0.0,), (1.0,)).to_dict(), class_names=list(CLASSES)
    )
    monkeypatch.setattr("lookaround.models.checkpoint.load_model", lambda path: (network, record))
    network.record = record
    return network


def call(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    predict.add_arguments(parser)
    return predict.run(parser.parse_args(["--weights", "runs/x", *map(str, arguments)]))


def paint(path: Path, colour: str, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (20, 10), colour).save(path)
    return path


def test_table_lists_the_likeliest_first(model, tmp_path, capsys):
    assert call(paint(tmp_path / "a.png", "white"), "--top", 2) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [str(tmp_path / "a.png"), "  white   99.3 %", "  grey     0.7 %"]


def test_json_is_one_document(model, tmp_path, capsys):
    files = [paint(tmp_path / "b.png", "black"), paint(tmp_path / "a.jpg", "white")]
    assert call(*files, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["image"] for row in document["images"]] == [str(file) for file in files]
    assert [row["predictions"][0]["label"] for row in document["images"]] == ["black", "white"]
    assert sum(p["probability"] for p in document["images"][0]["predictions"]) == pytest.approx(1)
    assert document["skipped"] == []


def test_folders_are_searched_in_order_and_batched(model, tmp_path, capsys):
    names = ["a/2.png", "a/1.png", "b.png", "a/inner/3.png", "c.png"]
    for name in names:
        paint(tmp_path / name, "gray")
    (tmp_path / "notes.txt").write_text("not searched for")
    assert call(tmp_path, "--json", "--batch-size", 2) == 0
    document = json.loads(capsys.readouterr().out)
    found = [str(Path(row["image"]).relative_to(tmp_path)) for row in document["images"]]
    assert found == ["b.png", "c.png", "a/1.png", "a/2.png", "a/inner/3.png"]
    assert model.batches == [2, 2, 1]


def test_unreadable_images_are_named_skipped_and_counted(model, tmp_path, capsys):
    good = [paint(tmp_path / "a.png", "white"), paint(tmp_path / "z.png", "black")]
    bad = tmp_path / "m.png"
    bad.write_text("no image")
    assert call(good[0], bad, tmp_path / "missing.png", good[1], "--json") == 1
    output = capsys.readouterr()
    document = json.loads(output.out)
    assert [row["image"] for row in document["images"]] == [str(path) for path in good]
    assert [row["image"] for row in document["skipped"]] == [str(bad), str(tmp_path / "missing.png")]
    assert "\n" not in document["skipped"][0]["reason"]
    assert f"skipped {bad}: " in output.err
    assert "2 of 4 skipped" in output.err


def test_all_unreadable(model, tmp_path, capsys):
    assert call(tmp_path / "missing.png") == 1
    assert capsys.readouterr().out == ""


def test_an_empty_folder_beside_an_image_is_skipped(model, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert call(tmp_path / "empty", paint(tmp_path / "a.png", "white")) == 1
    assert "the folder holds no images" in capsys.readouterr().err


def test_no_image_at_all(model, tmp_path):
    with pytest.raises(DataError, match="there must be at least one image; got none"):
        call(tmp_path)


@pytest.mark.parametrize("option", ["--top", "--batch-size"])
def test_numbers_must_be_positive(model, tmp_path, option):
    with pytest.raises(ArgumentError, match=f"{option} must be at least 1; got 0"):
        call(paint(tmp_path / "a.png", "white"), option, 0)


def test_device_must_be_there(model, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        ArgumentError, match="--device cuda must be a device that is there; got no CUDA device"
    ):
        call(paint(tmp_path / "a.png", "white"), "--device", "cuda")


def test_record_without_preprocessing(model, tmp_path):
    model.record.preprocessing = {}
    with pytest.raises(CheckpointError, match=r"must say how images are prepared(.|\n)*missing: image_size"):
        call(paint(tmp_path / "a.png", "white"))


def test_record_with_odd_class_names(model, tmp_path):
    model.record.class_names = [1, 2, 3]
    with pytest.raises(CheckpointError, match=r"must list the names of the classes; got \[1, 2, 3\]"):
        call(paint(tmp_path / "a.png", "white"))


def test_network_that_gives_no_numbers(model, tmp_path):
    model.factor = float("nan")
    with pytest.raises(CheckpointError, match="the network must give finite numbers; got NaN or infinity"):
        call(paint(tmp_path / "a.png", "white"))


def test_classes_without_names_are_numbered(model, tmp_path, capsys):
    model.record.class_names = []
    assert call(paint(tmp_path / "a.png", "white"), "--top", 1) == 0
    assert "class 2" in capsys.readouterr().out


@pytest.mark.usefixtures("shapes_unchecked")  # model.json holds lists where the configuration has tuples
def test_weights_of_a_run_are_used(tmp_path, capsys):
    torch.manual_seed(0)
    network = create_model("sasa_resnet14_small", num_classes=3, in_channels=1, width=0.25).eval()
    preprocessing = Preprocessing(8, 1, (0.5,), (0.5,))
    save_model(
        network, tmp_path / "run", preprocessing=preprocessing.to_dict(), class_names=CLASSES, metrics={}
    )
    file = paint(tmp_path / "a.png", "white")
    assert main(["predict", "--weights", str(tmp_path / "run"), "--json", str(file)]) == 0
    predictions = json.loads(capsys.readouterr().out)["images"][0]["predictions"]
    with torch.inference_mode():
        expected = network(preprocessing.evaluation()(Image.open(file))[None]).softmax(1)[0]
    assert {p["label"]: p["probability"] for p in predictions} == pytest.approx(
        dict(zip(CLASSES, expected.tolist(), strict=True)), rel=1e-4
    )


@pytest.mark.parametrize("others", [{}, {"letters": "resnet14_small"}])
def test_weights_that_come_with_the_package_are_the_default(model, tmp_path, monkeypatch, capsys, others):
    asked = []
    shipped = {"digits": "sasa_resnet14_small"} | others
    monkeypatch.setattr("lookaround.models.list_pretrained", lambda: shipped)
    monkeypatch.setattr(
        "lookaround.models.checkpoint.load_model", lambda path: asked.append(path) or (model, model.record)
    )
    assert main(["predict", str(paint(tmp_path / "a.png", "white"))]) == 0
    said = capsys.readouterr().err
    assert asked == ["digits"]
    assert said.startswith("lookaround predict: taking --weights digits (sasa_resnet14_small); ")
    assert ("the package has digits, letters" in said) == bool(others)


def test_no_weights_at_all(model, tmp_path, monkeypatch):
    monkeypatch.setattr("lookaround.models.list_pretrained", dict)
    with pytest.raises(ArgumentError, match="--weights must name a run folder; got nothing"):
        predict._weights(None)


def test_errors_are_one_line_without_a_traceback(tmp_path, capsys):
    assert main(["predict", "--weights", str(tmp_path), str(paint(tmp_path / "a.png", "white"))]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_terminal_gets_a_table_and_no_escapes_of_a_files_name(model, tmp_path, capsys, monkeypatch):
    file = paint(tmp_path / "[red]\x1b[2J.png", "white")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "300")
    assert call(file, "--top", 1) == 0
    out = capsys.readouterr().out
    assert "[red]\\x1b[2J.png" in out
    assert "white" in out
    assert "99.3 %" in out


def test_names_that_are_no_text_are_printed_as_escapes():
    assert predict.printable(os.fsdecode(b"a\xff.png")) == "a\\udcff.png"


def test_names_beyond_the_streams_letters_are_printed_as_escapes(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert predict.printable("é") == "\\xe9"
