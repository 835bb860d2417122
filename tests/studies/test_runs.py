import json
from pathlib import Path

import pytest

from lookaround import create_model
from lookaround.cli.main import main
from lookaround.models import save_model
from lookaround.training.files import write_json, write_rows


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run folder as `fit` and `test` leave it, as far as the table reads it."""
    folder = tmp_path / "first"
    model = create_model("sasa_resnet14_small", width=0.25, num_heads=4, num_classes=10, in_channels=1)
    save_model(model, folder, preprocessing={"image_size": 28})
    write_json(folder / "test.json", {"test_accuracy": 0.9012})
    cpu = {"model": "a processor", "cores": 2, "threads": 1}
    versions = {"torch": "2.15.0"}
    write_json(
        folder / "environment.json",
        {"cpu": cpu, "gpus": [], "versions": versions, "seed": 3, "commit": "0123456789abcdef"},
    )
    write_rows(
        folder / "metrics.csv", [{"epoch": 1, "epoch_seconds": 10.5}, {"epoch": 2, "epoch_seconds": 9.5}]
    )
    return folder


def test_runs_become_a_table_and_files(run_folder, tmp_path, capsys):
    out = tmp_path / "results" / "runs.json"
    out.parent.mkdir()
    assert main(["compare", str(run_folder), "--json", str(out), "--note", "Side by side."]) == 0
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if "first" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:2] == ["first", "sasa_resnet14_small"]
    assert cells[5:] == ["90.12%", "2", "20"]
    assert "a processor, 2 cores" in printed
    assert "seed 3; commit 0123456789ab.\n\nSide by side.\n" in printed
    assert json.loads(out.read_text())["runs"][0]["test_accuracy"] == 0.9012
    assert out.with_suffix(".md").read_text().strip() == printed.strip()


def test_a_run_without_a_test_is_refused(run_folder, capsys):
    (run_folder / "test.json").unlink()
    assert main(["compare", str(run_folder)]) == 2
    assert "must hold test.json" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    assert main(["compare", str(tmp_path)]) == 2
    assert "must hold model.json" in capsys.readouterr().err
