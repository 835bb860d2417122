"""Two processes on one machine."""

import json
import os
import subprocess
import sys

import pytest

from lookaround.training.files import read_rows
from short_runs import SHORT


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path):
    options = [word for pair in SHORT.items() for word in pair]
    options += ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    options += ["--model.optimizer.ema_decay", "0.9", "--trainer.max_epochs", "2", "--name", "run"]
    command = [sys.executable, "-m", "lookaround", "fit", *options, "--out", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    assert finished.returncode == 0, finished.stderr
    folder = tmp_path / "run"
    assert json.loads((folder / "environment.json").read_text())["status"] == "finished"
    rows = read_rows(folder / "metrics.csv")
    assert [row["step"] for row in rows] == [3, 6]
    # Two processes: twice the images per step, and so twice the learning rate (0.002 per 64 images).
    assert rows[0]["learning_rate"] > 0.002
    assert finished.stdout.count("epoch 1/2") == 1
    resumed = subprocess.run(
        [*command, "--resume", "--trainer.max_epochs", "3"], capture_output=True, text=True, timeout=300,
        env=environment, check=False,
    )  # fmt: skip
    assert resumed.returncode == 0, resumed.stderr
    assert len(read_rows(folder / "metrics.csv")) == 3
