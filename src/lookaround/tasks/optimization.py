"""How weights are changed: optimizer, learning-rate schedule, averaging of weights.

Source: "Stand-Alone Self-Attention in Vision Models", section 4.1 (Nesterov momentum, learning rate 1.6 at
batch 4096, 10 epochs of linear warm-up followed by a cosine, exponential moving average of the weights with
decay 0.9999).
"""

import math
import warnings
from dataclasses import dataclass
from typing import Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lookaround.errors import ArgumentError, message


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer, schedule and weight averaging of one training.

    Attributes:
        algorithm: `sgd` is Nesterov momentum, as in the paper; `adamw` suits small data sets.
        learning_rate: highest learning rate, for a global batch of `reference_batch_size` images.
        reference_batch_size: the batch that `learning_rate` is meant for; the rate used grows linearly with
            the real global batch (images per process x accumulated batches x processes).
        momentum: Nesterov momentum of `sgd`; first beta of `adamw`.
        weight_decay: L2 penalty of `sgd`, decoupled decay of `adamw`.
        decay_all: also decay norms, biases and position tables, which are left alone otherwise.
        warmup_epochs: epochs over which the learning rate rises linearly before the cosine brings it to zero.
        ema_decay: decay per optimizer step of the averaged weights, which are the ones validated and saved;
            no averaging if not given.
    """

    algorithm: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.1
    reference_batch_size: int = 256
    momentum: float = 0.9
    weight_decay: float = 1e-4
    decay_all: bool = False
    warmup_epochs: int | float = 0
    ema_decay: float | None = None

    def __post_init__(self) -> None:
        """Refuse values that cannot train.

        Raises:
            ArgumentError: a value is out of its range.
        """
        _require("algorithm must be 'sgd' or 'adamw'", self.algorithm in ("sgd", "adamw"), self.algorithm)
        _require("learning_rate must be above 0", self.learning_rate > 0, self.learning_rate)
        _require(
            "reference_batch_size must be at least 1",
            self.reference_batch_size >= 1,
            self.reference_batch_size,
        )
        _require("momentum must be within 0 and 1", 0 <= self.momentum < 1, self.momentum)
        _require("weight_decay must not be negative", self.weight_decay >= 0, self.weight_decay)
        _require("warmup_epochs must not be negative", self.warmup_epochs >= 0, self.warmup_epochs)
        decay_fits = self.ema_decay is None or 0 < self.ema_decay < 1
        _require("ema_decay must be between 0 and 1, or null", decay_fits, self.ema_decay)


def _require(must: str, holds: bool, got: object) -> None:
    if not holds:
        raise ArgumentError(message("OptimizerConfig", must, got))


def scaled_learning_rate(config: OptimizerConfig, global_batch_size: int) -> float:
    """The learning rate for a batch of this many images over all processes and accumulated batches.

    Example:
        >>> scaled_learning_rate(OptimizerConfig(learning_rate=1.6, reference_batch_size=4096), 1024)
        0.4
    """
    return config.learning_rate * global_batch_size / config.reference_batch_size


def warmup_cosine(step: int, warmup_steps: int, total_steps: int) -> float:
    """The share of the highest learning rate that optimizer step `step` (from 0) uses.

    Example:
        >>> [round(warmup_cosine(step, 2, 6), 3) for step in range(7)]
        [0.5, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if step >= total_steps:
        return 0.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (total_steps - warmup_steps)))


def parameter_groups(network: nn.Module, config: OptimizerConfig) -> list[dict[str, object]]:
    """Split the parameters into those that decay and those that do not (norms, biases, position tables)."""
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        decays = config.decay_all or (parameter.ndim > 1 and "embedding" not in name)
        (decayed if decays else kept).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def build_optimizer(network: nn.Module, config: OptimizerConfig, global_batch_size: int) -> Optimizer:
    """The optimizer of `network`, with its learning rate scaled to the real global batch."""
    learning_rate = scaled_learning_rate(config, global_batch_size)
    groups = parameter_groups(network, config)
    if config.algorithm == "adamw":
        return AdamW(groups, lr=learning_rate, betas=(config.momentum, 0.999))
    return SGD(groups, lr=learning_rate, momentum=config.momentum, nesterov=config.momentum > 0)


def build_schedule(
    optimizer: Optimizer, config: OptimizerConfig, total_steps: int, epoch_steps: int
) -> LambdaLR:
    """Warm-up, then a cosine that ends at zero after `total_steps` optimizer steps.

    The shape is a closure and so never part of a checkpoint: a resumed run follows the schedule of its own
    `max_epochs`, raised or not.
    """
    warmup_steps = min(total_steps, round(config.warmup_epochs * epoch_steps))
    if 0 < total_steps == warmup_steps:
        epochs = total_steps / epoch_steps
        warnings.warn(
            f"the warm-up ({config.warmup_epochs:g} epochs) is as long as the training ({epochs:g}): "
            "the learning rate never comes down. hint: lower model.optimizer.warmup_epochs or raise "
            "trainer.max_epochs.",
            stacklevel=2,
        )
    return LambdaLR(optimizer, lambda step: warmup_cosine(step, warmup_steps, total_steps))


class AveragedWeights(EMAWeightAveraging):
    """Exponential moving average of weights and running statistics; validated, saved and kept at the end.

    Departures from Lightning: no warning about `configure_model`, which does not shard here.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Copy the model when a fit begins."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*overrides the configure_model.*")
            super().setup(trainer, pl_module, stage)
