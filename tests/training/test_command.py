"""What LightningCLI is given besides: run options, and errors of one line."""

import warnings

import pytest
import torch

from lookaround.errors import (
    ArgumentError,
    CheckpointError,
    ConfigError,
    NonFiniteLossError,
    UnknownNameError,
)
from lookaround.training.command import run_command
from lookaround.training.session import quiet_lightning
from short_runs import SHORT

OPTIONS = [word for pair in SHORT.items() for word in pair]


def fit(out, *more, command="fit"):
    return run_command(command, [*OPTIONS, "--out", str(out), "--name", "run", *more])


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        (["--trainer.max_epoch", "3"], ConfigError, "unrecognized arguments: --trainer.max_epoch"),
        (["--trainer.max_epochs", "three"], ConfigError, "(?s)trainer.max_epochs.*three"),
        (["--trainer.callbacks", "NoSuch"], ConfigError, "NoSuch"),
        (["--model.optimizer.algorithm", "adam"], ConfigError, "adam"),
        (["--model.optimizer.learning_rate", "-1"], ArgumentError, "learning_rate must be above 0"),
        (["--model.model", "resnet14_smal"], UnknownNameError, "did you mean 'resnet14_small'"),
        (["--model.overrides.widht", "1"], ArgumentError, "width"),
        (["--data.dataset", "digit"], UnknownNameError, "did you mean 'digits'"),
        (["--data.batch_size", "5000"], ArgumentError, "batch_size must be at most .*; got 5000"),
        (["--data.dataset", "folder", "--data.root", "/no/such"], ValueError, "no/such"),
        (["--config", "nothing"], ConfigError, "name of a packaged recipe; got 'nothing'"),
        (["--config", "/no/such.yaml"], ConfigError, "got '/no/such.yaml'"),
        (["--name", "a/b"], ConfigError, "--name must be the name of one folder; got 'a/b'"),
        (
            ["--resume"],
            CheckpointError,
            "the run must have a last checkpoint; got no file .*run/checkpoints/last",
        ),
        (["--resume", "--overwrite"], ConfigError, "got --resume and --overwrite"),
        (["--ckpt_path", "/no/such.ckpt"], CheckpointError, "'/no/such.ckpt': there is no such file"),
        (["--trainer.sync_batchnorm", "true"], ConfigError, "sync_batchnorm needs GPUs; got a CPU trainer"),
        (["--trainer.max_epochs", "-1"], ConfigError, "the schedule needs an end"),
        (["--trainer.devices", "0"], ConfigError, "(?s)the settings must fit together; .*devices"),
    ],
)
def test_wrong_settings_are_named_and_nothing_is_written(tmp_path, options, error, match):
    with pytest.raises(error, match=match):
        fit(tmp_path, *options)
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_an_unknown_key_is_refused(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "model:\n  model: resnet14_small\n  overides: {width: 1}\ntrainer:\n  fast_dev_run: true\n"
    )
    with pytest.raises(ConfigError, match="overides"):
        run_command("fit", ["--config", str(recipe), "--out", str(tmp_path / "runs")])
    recipe.write_text("model: [unclosed\n")
    with pytest.raises(ConfigError, match="Problems parsing config"):
        run_command("fit", ["--config", str(recipe), "--out", str(tmp_path / "runs")])
    assert not (tmp_path / "runs").exists()


def test_without_a_recipe_the_network_is_asked_for(tmp_path):
    with pytest.raises(ConfigError, match=r"model.model"):
        run_command("fit", ["--out", str(tmp_path)])


def test_a_run_is_named_after_its_recipe(tmp_path):
    line = run_command("fit", [*OPTIONS, "--out", str(tmp_path), "--trainer.limit_train_batches", "1"])
    assert line.folder.path == tmp_path / "digits_baseline"
    assert line.trainer.global_step == 1


def test_a_run_is_not_overwritten_by_accident(tmp_path):
    fit(tmp_path)
    weights = (tmp_path / "run" / "weights.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="a new run needs a folder without a run in it"):
        fit(tmp_path)
    with pytest.raises(ArgumentError, match="batch_size must be at most"):
        fit(tmp_path, "--overwrite", "--data.batch_size", "5000")
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() == weights
    fit(tmp_path, "--overwrite", "--seed_everything", "5")
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() != weights
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    fit(tmp_path)
    checkpoint = str(tmp_path / "run" / "checkpoints" / "last.ckpt")
    other = ("--model.overrides.width", "0.125")
    with pytest.raises(CheckpointError, match=r"(?s)overrides: .*0.125.* here, .*0.0625.* in the file.*hint"):
        fit(tmp_path, *other, command="test")
    with pytest.raises(CheckpointError, match="the checkpoint must be of"):
        fit(tmp_path, *other, "--ckpt_path", checkpoint, "--name", "b")
    with pytest.raises(CheckpointError, match="the checkpoint must be of"):
        fit(tmp_path, *other, "--resume")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_training_can_go_on_from_a_checkpoint_of_elsewhere(tmp_path):
    fit(tmp_path)
    checkpoint = str(tmp_path / "run" / "checkpoints" / "last.ckpt")
    line = fit(tmp_path, "--ckpt_path", checkpoint, "--name", "b", "--trainer.max_epochs", "2")
    assert line.trainer.global_step == 6
    tested = fit(tmp_path, "--ckpt_path", checkpoint, "--name", "c", command="validate")
    assert tested.model.confusion_matrix is not None
    assert not (tmp_path / "c").exists()


def test_evaluating_needs_a_run(tmp_path):
    with pytest.raises(CheckpointError, match="test: the run must have a last checkpoint"):
        fit(tmp_path, command="test")


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(tmp_path):
    options = ("--model.optimizer.algorithm", "sgd", "--model.optimizer.learning_rate", "1e30")
    match = r"(?s)the loss must stay finite \(step \d, epoch 1\).*last good checkpoint: .*checkpoints/last"
    with pytest.raises(NonFiniteLossError, match=match):
        fit(tmp_path, *options, "--model.optimizer.warmup_epochs", "0")
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert all(torch.isfinite(value).all() for value in saved["state_dict"].values())


def test_warnings_are_one_line():
    before = warnings.formatwarning
    with quiet_lightning():
        assert warnings.formatwarning("a\n  b", UserWarning, "file", 1) == "warning: a b\n"
    assert warnings.formatwarning is before
