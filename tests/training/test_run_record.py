import json

import pytest
import torch
import yaml
from PIL import Image

from lookaround.cli.main import main
from lookaround.models.checkpoint import load_model
from lookaround.training.files import read_rows
from lookaround.training.run_folder import FILES, RunFolder
from short_runs import short_run

MODEL_FILES = {"weights.safetensors", "model.json", "learning_curves.png", "confusion_matrix.png"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    options = ("--trainer.max_epochs", "2", "--model.optimizer.ema_decay", "0.9")
    assert short_run("fit", out, *options) == 0
    assert short_run("test", out, *options, "--trainer.limit_test_batches", "2") == 0
    return RunFolder(out / "run")


def test_everything_is_there_and_nothing_half_written(run):
    names = {path.name for path in run.path.iterdir()}
    assert {"config.yaml", "metrics.csv", "environment.json", "checkpoints", "logs"} | MODEL_FILES <= names
    assert names <= {*FILES, "checkpoints", "logs"}
    assert {path.name for path in run.checkpoints.iterdir()} == {"best.ckpt", "last.ckpt"}
    assert list((run.path / "logs").rglob("events.out.tfevents*"))
    assert list((run.path / "logs" / "csv").rglob("metrics.csv"))
    assert not run.aside.path.exists()


def test_metrics_have_one_whole_row_per_epoch(run):
    rows = read_rows(run.path / "metrics.csv")
    assert [row["epoch"] for row in rows] == [1, 2]
    assert [row["step"] for row in rows] == [3, 6]
    columns = [
        "epoch",
        "step",
        "train_loss",
        "train_accuracy",
        "val_loss",
        "val_accuracy",
        "val_accuracy_top5",
    ]
    assert list(rows[0]) == [*columns, "learning_rate", "images_per_second", "epoch_seconds"]
    assert all(set(row) == set(rows[0]) for row in rows)


def test_the_environment_says_how_it_was_made(run):
    facts = json.loads((run.path / "environment.json").read_text())
    assert facts["status"] == "finished"
    assert (facts["seed"], facts["epochs"], facts["resumed_times"]) == (0, 2, 0)
    assert facts["versions"]["torch"]
    assert facts["cpu"]["threads"] == torch.get_num_threads()
    assert facts["started"].endswith("+00:00")
    assert facts["duration_seconds"] > 0


def test_the_weights_are_the_averaged_ones_and_say_what_they_are(run):
    network, record = load_model(run.path)
    saved = torch.load(run.last_checkpoint, weights_only=True)
    averaged = saved["state_dict"]["network.fc.weight"]
    assert torch.equal(network.fc.weight, averaged)
    assert not torch.equal(saved["current_model_state"]["network.fc.weight"], averaged)
    assert record.name == "resnet14_small"
    assert record.class_names == [str(digit) for digit in range(10)]
    assert record.preprocessing["image_size"] == 8
    assert record.metrics["val_accuracy"] == read_rows(run.path / "metrics.csv")[-1]["val_accuracy"]


@pytest.mark.parametrize("name", ["learning_curves", "confusion_matrix", "test_confusion_matrix"])
def test_pictures_open(run, name):
    with Image.open(run.path / f"{name}.png") as picture:
        picture.load()
        assert picture.width > 400


def test_the_test_writes_its_figures(run):
    record = json.loads((run.path / "test.json").read_text())
    assert record["checkpoint"] == "last.ckpt"
    assert {"test_loss", "test_accuracy", "test_accuracy_top5"} <= set(record)


def test_the_config_can_be_used_again(run, tmp_path):
    path = run.path / "config.yaml"
    config = yaml.safe_load(path.read_text())
    assert (config["name"], config["resume"], config["overwrite"], config["ckpt_path"]) == (
        "run",
        False,
        False,
        None,
    )
    assert config["model"]["overrides"] == {"width": 0.0625, "drop_path": 0.2}
    assert main(["fit", "--config", str(path), "--out", str(tmp_path)]) == 0
    again, first = (read_rows(folder / "metrics.csv") for folder in (tmp_path / "run", run.path))
    assert [row["train_loss"] for row in again] == [row["train_loss"] for row in first]
    assert main(["validate", "--config", str(path), "--ckpt_path", "best"]) == 0
    assert json.loads((run.path / "validate.json").read_text())["checkpoint"] == "best.ckpt"


def test_a_trial_leaves_nothing_behind(tmp_path):
    assert short_run("fit", tmp_path, "--trainer.fast_dev_run", "true") == 0
    assert list(tmp_path.iterdir()) == []


def test_without_checkpoints_and_logs_the_record_is_kept(tmp_path):
    options = ("--trainer.enable_checkpointing", "false", "--trainer.logger", "false")
    assert short_run("fit", tmp_path, *options) == 0
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"config.yaml", "metrics.csv", "environment.json"} | MODEL_FILES


def test_the_last_epoch_is_kept_even_if_it_is_not_the_best(tmp_path):
    assert (
        short_run("fit", tmp_path, "--trainer.max_epochs", "2", "--model.optimizer.learning_rate", "1e-9")
        == 0
    )
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 6
