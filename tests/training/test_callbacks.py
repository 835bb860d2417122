import random

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn

from lookaround.data.classification import ClassificationData
from lookaround.errors import NonFiniteLossError
from lookaround.tasks.classification import ClassificationTask
from lookaround.training.callbacks import EpochLines, EpochSeed, FiniteGuard, Throughput, first_non_finite
from lookaround.training.run_folder import RunFolder


def fit(tmp_path, *callbacks, task=None, **options):
    defaults = {"max_epochs": 1, "limit_train_batches": 3, "limit_val_batches": 1, "logger": False}
    quiet = {"enable_model_summary": False, "enable_checkpointing": False, "num_sanity_val_steps": 0}
    trainer = pl.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        callbacks=list(callbacks),
        **(defaults | quiet | options),
    )
    task = ClassificationTask("resnet14_small", {"width": 0.0625}) if task is None else task
    trainer.fit(task, datamodule=ClassificationData("digits"))
    return trainer


class Broken(ClassificationTask):
    """Spoils something at the second step."""

    def __init__(self, what):
        super().__init__("resnet14_small", {"width": 0.0625})
        self.what = what

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        if batch_idx == 1 and self.what == "loss":
            return loss * float("nan")
        if batch_idx == 1 and self.what == "gradient":
            self.network.fc.weight.register_hook(lambda gradient: gradient * float("inf"))
        if batch_idx == 0 and self.what == "value":
            self.network.fc.bias.data[0] = float("nan")
            return super().training_step(batch, batch_idx)
        return loss


@pytest.mark.parametrize(
    ("what", "match"),
    [
        (
            "loss",
            r"\(step 1, epoch 1\); got loss nan.\n.*every parameter is finite; the largest value, .* is in ",
        ),
        ("gradient", r"\(step 1, epoch 1\); .*\n.*first non-finite gradient: network.fc.weight"),
        ("value", r"\(step 0, epoch 1\); got loss nan.\n.*first non-finite parameter: network.fc.bias"),
    ],
)
def test_a_loss_that_is_not_finite_stops_at_once(tmp_path, what, match):
    task = Broken(what)
    with pytest.raises(NonFiniteLossError, match=match) as caught:
        fit(tmp_path, FiniteGuard(), task=task, enable_progress_bar=False)
    assert "last good checkpoint: none yet" in str(caught.value)
    assert "hint: lower --model.optimizer.learning_rate" in str(caught.value)
    if what != "value":
        assert first_non_finite(task) is None  # the weights are not spoiled


def test_the_last_good_checkpoint_is_named(tmp_path):
    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir()
    folder.last_checkpoint.touch()
    with pytest.raises(NonFiniteLossError, match=f"last good checkpoint: {folder.last_checkpoint}"):
        fit(tmp_path, FiniteGuard(folder), task=Broken("loss"), enable_progress_bar=False)


def test_a_gradient_norm_that_overflows_is_no_failure(tmp_path, shapes_unchecked):
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.grad = torch.full((1, 2), 3e38)
    trainer = fit(tmp_path, enable_progress_bar=False)
    guard = FiniteGuard()
    assert not torch.isfinite(nn.utils.get_total_norm([layer.weight.grad]))
    assert guard.on_before_optimizer_step(trainer, layer, None) is None


def test_first_non_finite_looks_in_order():
    layers = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert first_non_finite(layers) is None
    layers[1].weight.data[0, 0] = float("inf")
    layers[0].bias.data[0] = float("nan")
    assert first_non_finite(layers) == "0.bias"
    assert first_non_finite(layers, gradients=True) is None


def test_an_epoch_draws_the_same_numbers_whatever_came_before(tmp_path, shapes_unchecked):
    trainer = fit(tmp_path, enable_progress_bar=False)
    draws = []
    for _ in range(2):
        EpochSeed(3).on_train_epoch_start(trainer, None)
        draws.append((random.random(), np.random.get_state()[1][0], torch.rand(1).item()))  # noqa: NPY002 - the global generator is what is seeded
    assert draws[0] == draws[1]
    EpochSeed(4).on_train_epoch_start(trainer, None)
    assert torch.rand(1).item() != draws[0][2]


def test_throughput_and_learning_rate_are_logged(tmp_path):
    trainer = fit(tmp_path, Throughput(), enable_progress_bar=False)
    assert float(trainer.callback_metrics["images_per_second"]) > 0
    assert 0 < float(trainer.callback_metrics["learning_rate"]) <= 0.1


def test_a_line_per_epoch(tmp_path, capsys):
    fit(tmp_path, EpochLines(), Throughput(), max_epochs=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    for word in ("train_loss", "val_loss", "val_accuracy", "learning_rate", "images/s", " s"):
        assert word in lines[0]
