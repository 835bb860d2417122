"""Runs of detectors as a table, and the study that makes them."""

import json
import math

import pytest

from lookaround import create_model
from lookaround.cli.main import main
from lookaround.errors import ArgumentError
from lookaround.models import save_model
from lookaround.studies import scenes
from lookaround.studies.detection_runs import HEADER, forms_table, read_detection_run
from lookaround.training.files import write_json, write_rows
from scene_runs import options

TINY = {"width": 0.125, "num_heads": 2, "pyramid_channels": 8}


def make_run(folder, seed=0, figure=0.5, tested=True, **overrides):
    """A run folder as `fit` and `test` leave it, as far as the table reads it."""
    model = create_model("sasa_retinanet_resnet14_small", **(TINY | overrides))
    save_model(model, folder, preprocessing={"image_size": 64})
    if tested:
        figures = {"test_map": figure, "test_map50": figure + 0.2, "test_map_large": None}
        write_json(folder / "test.json", {"checkpoint": "last.ckpt", "test_loss": 1.0, **figures})
    cpu = {"model": "a processor", "cores": 2, "threads": 1}
    environment = {"cpu": cpu, "gpus": [], "versions": {"torch": "2.15.0"}, "seed": seed}
    write_json(folder / "environment.json", environment | {"commit": "0123456789abcdef"})
    rows = [{"epoch": 1, "epoch_seconds": 10.5}, {"epoch": 2, "epoch_seconds": 9.5}]
    write_rows(folder / "metrics.csv", rows)
    return folder


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_runs_of_one_form_are_one_row(tmp_path):
    folders = [make_run(tmp_path / str(seed), seed, 0.5 + 0.02 * seed) for seed in (0, 1)]
    folders.append(make_run(tmp_path / "mixed", 0, 0.4, heads="convolution"))
    runs = [read_detection_run(folder) for folder in folders]
    head, rule, first, second = forms_table(runs).splitlines()[:4]
    assert tuple(cells(head)) == HEADER
    assert set(rule) <= set("|-: ")
    parameters = f"{runs[0].parameters:,}"
    assert cells(first)[:8] == [
        "attention",
        "attention",
        "attention",
        "0.510 ± 0.014",
        "0.710 ± 0.014",
        "–",
        "2",
        parameters,
    ]
    assert cells(first)[-2:] == ["2", "20"]
    assert cells(second)[:4] == ["attention", "attention", "convolution", "0.400"]
    assert "a processor, 2 cores" in forms_table(runs)
    assert "seeds 0, 1; commit 0123456789ab." in forms_table(runs)


def test_compare_takes_detectors_too(tmp_path, capsys):
    folder = make_run(tmp_path / "first")
    out = tmp_path / "runs.json"
    assert main(["compare", str(folder), "--json", str(out), "--note", "One seed."]) == 0
    printed = capsys.readouterr().out
    assert printed.endswith("One seed.\n")
    assert out.with_suffix(".md").read_text() == printed
    run = json.loads(out.read_text())["runs"][0]
    assert run["figures"] == {"loss": 1.0, "map": 0.5, "map50": 0.7, "map_large": None}
    assert (run["run"], run["backbone"], run["train_seconds"]) == ("first", "attention", 20.0)


def test_detectors_and_classifiers_are_kept_apart(tmp_path, capsys):
    detector = make_run(tmp_path / "detector")
    save_model(create_model("resnet14_small", width=0.125), tmp_path / "classifier")
    assert main(["compare", str(detector), str(tmp_path / "classifier")]) == 2
    assert "runs of detectors are compared with runs of detectors alone" in capsys.readouterr().err
    write_json(tmp_path / "classifier" / "test.json", {"test_accuracy": 0.5})
    assert main(["compare", str(tmp_path / "classifier"), str(detector)]) == 2
    assert "error: " in capsys.readouterr().err


def test_a_classifiers_table_refuses_a_detector(tmp_path):
    from lookaround.errors import DataError
    from lookaround.studies.runs import read_run

    with pytest.raises(DataError, match="runs of classifiers are compared with runs of classifiers alone"):
        read_run(make_run(tmp_path / "detector"))


def test_a_run_that_was_not_tested_is_refused(tmp_path, capsys):
    assert main(["compare", str(make_run(tmp_path / "first", tested=False))]) == 2
    assert "the folder must hold test.json" in capsys.readouterr().err


def test_the_study_trains_every_form_once(tmp_path, monkeypatch):
    monkeypatch.setattr(scenes, "RECIPES", scenes.RECIPES[-1:])
    words, said = options(tmp_path)[2:], []
    first = list(scenes.run_scenes(tmp_path / "runs", [3], words, said.append))
    assert [run.run for run in first] == ["scenes_attention_retinanet-seed3"]
    assert first[0].environment["seed"] == 3
    assert first[0].epochs == 1
    assert not math.isnan(first[0].figures["map"])
    assert said == ["\n[1/1] scenes_attention_retinanet, seed 3"]

    def refuse(*_):
        raise AssertionError("a run that is done was begun again")

    monkeypatch.setattr(scenes, "run_command", refuse)
    assert list(scenes.run_scenes(tmp_path / "runs", [3], words, said.append)) == first


def test_the_study_writes_its_table(tmp_path, monkeypatch, capsys):
    def finished(out, recipe, seed, words):
        assert words == ["--trainer.max_epochs", "2"]
        folder = make_run(tmp_path / "made" / f"{recipe}-{seed}", seed)
        return read_detection_run(folder)

    monkeypatch.setattr(scenes, "run_form", finished)
    out = tmp_path / "scenes.json"
    assert main(["study", "scenes", "--seeds", "0", "1", "--epochs", "2", "--json", str(out)]) == 0
    assert len(json.loads(out.read_text())["runs"]) == 8
    assert "0.500 ± 0.000" in out.with_suffix(".md").read_text()
    assert "[8/8] scenes_attention_retinanet, seed 1" in capsys.readouterr().out


@pytest.mark.parametrize("seeds", [[], [-1], [2**32]])
def test_seeds_must_be_seeds(tmp_path, seeds):
    with pytest.raises(ArgumentError, match="--seeds must be at least one number from 0"):
        list(scenes.run_scenes(tmp_path, seeds))
