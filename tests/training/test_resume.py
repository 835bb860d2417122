"""A run that is stopped and resumed ends as the one that was not."""

import json

import pytest
import torch
from safetensors.torch import load_file

from lookaround.tasks.classification import ClassificationTask
from lookaround.training.callbacks import EpochSeed
from lookaround.training.files import read_rows
from short_runs import short_run

EPOCHS = ("--trainer.max_epochs", "3")
TIMES = ("images_per_second", "epoch_seconds")


def averaging(decay):
    return ("--model.optimizer.ema_decay", "null" if decay is None else str(decay))


def interrupt_in(monkeypatch, epoch, batch):
    """Press Ctrl-C before a batch; before the epoch begins if `batch` is None."""
    step, begin = ClassificationTask.training_step, EpochSeed.on_train_epoch_start

    def training_step(self, images, batch_idx):
        if (self.current_epoch, batch_idx) == (epoch, batch):
            raise KeyboardInterrupt
        return step(self, images, batch_idx)

    def on_train_epoch_start(self, trainer, module):
        if batch is None and trainer.current_epoch == epoch:
            raise KeyboardInterrupt
        begin(self, trainer, module)

    monkeypatch.setattr(ClassificationTask, "training_step", training_step)
    monkeypatch.setattr(EpochSeed, "on_train_epoch_start", on_train_epoch_start)


def assert_same_end(one, other):
    ours, theirs = load_file(one / "weights.safetensors"), load_file(other / "weights.safetensors")
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    rows, expected = read_rows(one / "metrics.csv"), read_rows(other / "metrics.csv")
    for row in (*rows, *expected):
        for name in TIMES:
            row.pop(name)
    assert rows == expected


@pytest.fixture(scope="module", params=[None, 0.9], ids=["plain", "averaged"])
def uninterrupted(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    assert short_run("fit", out, *EPOCHS, *averaging(request.param)) == 0
    return request.param, out / "run"


@pytest.mark.parametrize(("epoch", "batch"), [(0, 1), (1, None), (1, 1), (2, 0)])
def test_interrupted_and_resumed_ends_in_the_same_bits(
    uninterrupted, tmp_path, monkeypatch, capsys, epoch, batch
):
    decay, whole = uninterrupted
    with monkeypatch.context() as context:
        interrupt_in(context, epoch, batch)
        assert short_run("fit", tmp_path, *EPOCHS, *averaging(decay)) == 130
    assert "the same command with --resume goes on" in capsys.readouterr().err
    folder = tmp_path / "run"
    assert json.loads((folder / "environment.json").read_text())["status"] == "interrupted"
    assert len(read_rows(folder / "metrics.csv")) == epoch
    assert not (folder / "weights.safetensors").exists()
    assert short_run("fit", tmp_path, *EPOCHS, *averaging(decay), "--resume") == 0
    assert_same_end(folder, whole)
    environment = json.loads((folder / "environment.json").read_text())
    assert (environment["status"], environment["epochs"]) == ("finished", 3)
    assert environment["resumed_times"] == (0 if epoch == 0 else 1)


def test_a_crash_is_resumed_as_well(uninterrupted, tmp_path, monkeypatch):
    decay, whole = uninterrupted
    with monkeypatch.context() as context:
        context.setattr(ClassificationTask, "on_train_epoch_end", _crash_after_the_second, raising=False)
        with pytest.raises(RuntimeError, match="crash"):
            short_run("fit", tmp_path, *EPOCHS, *averaging(decay))
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["status"] == "failed"
    assert short_run("fit", tmp_path, *EPOCHS, *averaging(decay), "--resume") == 0
    assert_same_end(tmp_path / "run", whole)


def _crash_after_the_second(self):
    if self.current_epoch == 1:
        raise RuntimeError("crash")


def test_two_runs_with_one_seed_are_one_and_another_seed_is_another(uninterrupted, tmp_path):
    decay, whole = uninterrupted
    assert short_run("fit", tmp_path, *EPOCHS, *averaging(decay)) == 0
    assert_same_end(tmp_path / "run", whole)
    assert short_run("fit", tmp_path, *EPOCHS, *averaging(decay), "--seed_everything", "1", name="b") == 0
    weights = load_file(tmp_path / "b" / "weights.safetensors")
    assert not torch.equal(weights["fc.weight"], load_file(whole / "weights.safetensors")["fc.weight"])


def test_more_epochs_stretch_the_schedule(tmp_path, capsys):
    assert short_run("fit", tmp_path, "--trainer.max_epochs", "2") == 0
    assert short_run("fit", tmp_path, "--trainer.max_epochs", "4", "--resume") == 0
    assert short_run("fit", tmp_path, "--trainer.max_epochs", "4", name="whole") == 0
    rates = [
        [row["learning_rate"] for row in read_rows(tmp_path / run / "metrics.csv")]
        for run in ("run", "whole")
    ]
    assert rates[0][2:] == rates[1][2:]
    assert rates[0][1] < rates[1][1]


def test_the_first_step_after_a_stretch_follows_the_new_schedule(tmp_path, monkeypatch):
    seen = []
    begin = ClassificationTask.training_step

    def training_step(self, batch, batch_idx):
        seen.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        return begin(self, batch, batch_idx)

    monkeypatch.setattr(ClassificationTask, "training_step", training_step)
    short_run("fit", tmp_path, "--trainer.max_epochs", "2")
    short_run("fit", tmp_path, "--trainer.max_epochs", "4", "--resume")
    short_run("fit", tmp_path, "--trainer.max_epochs", "4", name="whole")
    assert seen[6] == seen[12 + 6] > 0


def test_a_run_that_has_its_epochs_is_left_as_it_is(tmp_path, capsys):
    assert short_run("fit", tmp_path, "--model.optimizer.ema_decay", "0.9") == 0
    before = (tmp_path / "run" / "weights.safetensors").read_bytes()
    capsys.readouterr()
    assert short_run("fit", tmp_path, "--model.optimizer.ema_decay", "0.9", "--resume") == 0
    assert (
        "nothing to do: the run has its 1 epochs. hint: raise --trainer.max_epochs."
        in capsys.readouterr().out
    )
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() == before
