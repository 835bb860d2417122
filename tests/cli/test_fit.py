import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from lookaround.cli.main import main
from short_runs import SHORT, short_run


def test_help_is_lightnings_with_the_options_of_a_run(capsys):
    assert main(["fit", "--help"]) == 0
    printed = capsys.readouterr().out
    for option in (
        "--name",
        "--out",
        "--resume",
        "--overwrite",
        "--trainer.max_epochs",
        "--model.model",
        "--data.root",
    ):
        assert option in printed


def test_print_config_shows_recipe_and_overrides(capsys, tmp_path):
    options = ["--config", "digits_full_attention", "--trainer.max_epochs", "7", "--out", str(tmp_path)]
    assert main(["fit", *options, "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"]["model"] == "sasa_resnet14_small"
    assert config["trainer"]["max_epochs"] == 7
    assert list(tmp_path.iterdir()) == []


def test_fit_validate_test(tmp_path, capsys):
    assert short_run("fit", tmp_path) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("epoch 1/1  train_loss")
    assert printed[-1] == f"run folder: {tmp_path / 'run'}"
    assert short_run("validate", tmp_path) == 0
    assert short_run("test", tmp_path, "--trainer.limit_test_batches", "1") == 0
    assert "test_accuracy" in capsys.readouterr().out


def test_errors_are_one_line(tmp_path, capsys):
    assert short_run("fit", tmp_path, "--trainer.no_such", "1") == 2
    error = capsys.readouterr().err
    assert error.startswith("lookaround fit: error: the settings must be ones it knows; got ")
    assert "--trainer.no_such" in error
    assert error.count("\n") == 1
    assert short_run("fit", tmp_path, "--resume") == 2
    error = capsys.readouterr().err
    assert error.startswith("lookaround fit: error: the run must have a last checkpoint; got no file")
    assert error.count("\n") == 1


@pytest.mark.slow
def test_ctrl_c_stops_and_resume_goes_on(tmp_path):
    options = [word for pair in SHORT.items() for word in pair]
    options += ["--out", str(tmp_path), "--name", "run", "--trainer.max_epochs", "1000"]
    command = [sys.executable, "-u", "-m", "lookaround", "fit", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # A shell's background job starts with Ctrl-C ignored, and would hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    process.stdout.readline()  # the first epoch is over
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in error
    assert "--resume" in error
    epochs = len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) - 1
    resumed = subprocess.run(
        [*command, "--resume", "--trainer.max_epochs", str(epochs + 1)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert resumed.returncode == 0, resumed.stderr
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == epochs + 2
