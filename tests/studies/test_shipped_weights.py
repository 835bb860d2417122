"""A run's weights made ready to ship: halved, measured again, described."""

import json
from pathlib import Path

import pytest
import torch

from lookaround.errors import ArgumentError, DataError
from lookaround.models import load_model
from lookaround.models.checkpoint import read_tensors
from lookaround.studies import shipped_weights
from lookaround.studies.shipped_weights import ship_weights
from short_runs import short_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    assert short_run("fit", out) == short_run("test", out) == 0
    return out / "run"


def test_weights_are_halved_measured_and_described(run: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    said: list[str] = []
    folder = ship_weights(run, "few_digits", tmp_path, said.append)
    assert folder == tmp_path / "few_digits"
    assert sorted(path.name for path in folder.iterdir()) == ["card.md", "model.json", "weights.safetensors"]
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    shipped, full = (read_tensors("test", at / "weights.safetensors") for at in (folder, run))
    assert {value.dtype for value in shipped.values()} == {torch.float16, torch.int64}
    assert all(torch.equal(value, full[key].to(value.dtype)) for key, value in shipped.items())
    model, record = load_model(folder)
    tested = json.loads((run / "test.json").read_text())
    assert not model.training
    # Barely trained: an image in 359 may fall to the other side.
    assert record.metrics["test_accuracy"] == pytest.approx(tested["test_accuracy"], abs=3 / 359)
    assert f"{tested['test_accuracy']:.2%} in float32" in said[0]
    card = (folder / "card.md").read_text()
    assert f"| accuracy, test images | {record.metrics['test_accuracy']:.2%} |" in card
    assert "The weights were rounded to float16" in card


def test_a_tag_is_the_name_of_a_folder(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"--tag must be of letters.*; got '\.\./digits'"):
        ship_weights(run, "../digits", tmp_path)


def test_large_weights_do_not_ship(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped_weights, "MOST_BYTES", 1000)
    with pytest.raises(DataError, match="must have at most 1,000 bytes; got "):
        ship_weights(run, "digits", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_must_be_tested(run: Path, tmp_path: Path) -> None:
    for name in ("model.json", "weights.safetensors", "config.yaml"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    with pytest.raises(DataError, match="the run must have been trained and tested; got "):
        ship_weights(tmp_path, "digits", tmp_path)
