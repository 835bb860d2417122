"""The demo: its table, its pictures, and one short run from the command line to the files."""

import json
from pathlib import Path

import pytest
from PIL import Image

from lookaround.cli import main
from lookaround.errors import ArgumentError
from lookaround.studies import demo, demo_detection

RESULT = demo.Result("digits_baseline", "resnet14_small", 123_456, 2_500_000, 2_000_000, 360, 0.975, 12.3, 20)
ROWS = [
    {"epoch": 1.0, "val_loss": 2.0, "val_accuracy": 0.3},
    {"epoch": 2.0, "val_loss": 1.0, "val_accuracy": 0.6},
]


def test_table_has_a_row_for_each_result() -> None:
    head, rule, row = demo.results_table([RESULT]).splitlines()
    assert [cell.strip() for cell in head.strip("|").split("|")] == list(demo.HEADER)
    assert set(rule) <= set("|-: ")
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "resnet14_small",
        "123,456",
        "2.50",
        "2.00",
        "97.50%",
        "12",
    ]
    assert len(head) == len(rule) == len(row)


def test_results_say_where_they_are_from(tmp_path: Path) -> None:
    demo.write_results(tmp_path, [RESULT], seed=7)
    record = json.loads((tmp_path / "results.json").read_text())
    text = (tmp_path / "results.md").read_text()
    assert record["results"][0]["test_accuracy"] == 0.975
    assert record["environment"]["seed"] == 7
    assert {"commit", "cpu", "versions"} <= set(record["environment"])
    assert "resnet14_small" in text
    assert "seed 7" in text
    assert f"{record['environment']['cpu']['threads']} thread" in text or record["environment"]["gpus"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "results.md"]


def test_comparison_is_a_picture(tmp_path: Path) -> None:
    demo.draw_comparison({"attention": ROWS, "convolution": ROWS[:1]}, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > picture.height > 200


@pytest.mark.parametrize(
    ("epochs", "seed", "words"),
    [(0, 0, "--epochs must be at least 1; got 0"), (1, -1, "--seed must be at least 0"), (1, 2**32, "below")],
)
def test_arguments_that_cannot_be_used(tmp_path: Path, epochs: int, seed: int, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        demo.check_arguments(tmp_path, epochs, seed)


def test_out_must_be_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    assert main.main(["demo", "--out", str(file)]) == 2
    assert "--out must be a folder; got the file" in capsys.readouterr().err
    assert file.read_text() == "mine"


@pytest.mark.slow
def test_demo_from_the_command_line_to_the_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One epoch of two of the three networks and of the detector, twice: the second replaces the first."""
    monkeypatch.setattr(demo, "KINDS", dict(list(demo.KINDS.items())[1:]))
    tiny = {"images": 12, "image_size": 48, "smallest": 16, "largest": 24}
    monkeypatch.setattr(demo_detection, "EASY", demo_detection.EASY | tiny)
    for _ in range(2):
        assert main.main(["demo", "--out", str(tmp_path), "--epochs", "1", "--seed", "3"]) == 0
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())["results"]
    assert [result["epochs"] for result in results] == [1, 1]
    assert all(0 <= result["test_accuracy"] <= 1 for result in results)
    assert all(result["network"] in printed for result in results)
    table = printed[printed.rindex("| network") :].split("\n\n")[0]
    assert (tmp_path / "results.md").read_text().startswith(table)
    assert "finds digits in 2 held-out easy scenes" in printed
    assert "finds digits in 2 held-out easy scenes" in (tmp_path / "results.md").read_text()
    detection = json.loads((tmp_path / "results.json").read_text())["detection"]
    assert (detection["test_images"], detection["epochs"]) == (2, 1)
    for name in ("learning_curves.png", "confusion_matrix.png", "attention_maps.png", "detections.png"):
        assert name in printed
        with Image.open(tmp_path / name) as picture:
            assert picture.format == "PNG"
    assert (tmp_path / "digits_baseline" / "test.json").exists()
