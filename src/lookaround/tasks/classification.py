"""Training a named network to say what is in a picture."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from lookaround.errors import ArgumentError, CheckpointError, ConfigError, message
from lookaround.models import ResNet, create_model
from lookaround.tasks.optimization import AveragedWeights, OptimizerConfig, build_optimizer, build_schedule

Batch = Sequence[Tensor]
NETWORK_FIELDS = ("model", "overrides", "num_classes", "in_channels")
DEFAULT_OPTIMIZER = OptimizerConfig()
# Checkpoints hold plain types only; this is how Lightning makes an OptimizerConfig of the mapping again.
INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"


class ClassificationTask(pl.LightningModule):
    """A network, cross entropy, accuracy, and the optimizer that trains it.

    The network is built when training or testing starts, with as many classes and channels as the data has.
    Images are put into channels-last order. Logged each epoch: `train_loss` (with label smoothing),
    `train_accuracy`, and for `val` and `test` the loss (without smoothing), the accuracy and, above five
    classes, `accuracy_top5`.

    Args:
        model: name of a network, one of `lookaround.list_models()`.
        overrides: what differs from the named network, as in `lookaround.create_model(model, **overrides)`.
        optimizer: optimizer, schedule and averaging of weights.
        label_smoothing: share of the target spread evenly over all classes while training.
        num_classes: number of classes; taken from the data if not given.
        in_channels: channels of an image; taken from the data if not given.

    Attributes:
        network: the network, once it is built.
        confusion_matrix: counts of the last validation or test, true class by predicted class.

    Raises:
        UnknownNameError: the network or an override is not known.
        ArgumentError: a value is out of its range.
    """

    network: ResNet

    def __init__(
        self,
        model: str,
        overrides: dict[str, Any] | None = None,
        optimizer: OptimizerConfig = DEFAULT_OPTIMIZER,
        label_smoothing: float = 0.1,
        num_classes: int | None = None,
        in_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.optimizer = optimizer
        if not 0 <= label_smoothing < 1:
            must = "label_smoothing must be at least 0 and below 1"
            raise ArgumentError(message("ClassificationTask", must, label_smoothing))
        self.overrides = {} if overrides is None else dict(overrides)
        self.save_hyperparameters(
            {
                "model": model,
                "overrides": self.overrides,
                "optimizer": asdict(self.optimizer),
                "label_smoothing": label_smoothing,
                "num_classes": num_classes,
                "in_channels": in_channels,
                "_instantiator": INSTANTIATOR,
            }
        )
        self.confusion_matrix: Tensor | None = None
        self._counts: Tensor | None = None
        with torch.device(
            "meta"
        ):  # a wrong name or override shows now, at no cost, before anything is written
            create_model(model, **self.overrides)
        if num_classes is not None and in_channels is not None:
            self.configure_model()

    def configure_model(self) -> None:
        """Build the network, once, for the classes and channels of the data.

        Raises:
            ConfigError: neither the data nor the arguments say how many classes or channels there are.
        """
        if hasattr(self, "network"):
            return
        data = self._datamodule()
        if self.hparams["num_classes"] is None:
            self.hparams["num_classes"] = _of_data(data, "num_classes")
        preprocessing = getattr(data, "preprocessing", None)
        if self.hparams["in_channels"] is None:
            self.hparams["in_channels"] = _of_data(preprocessing, "in_channels")
        classes, channels = self.hparams["num_classes"], self.hparams["in_channels"]
        chosen = {"num_classes": classes, "in_channels": channels} | self.overrides
        self.network = create_model(self.hparams["model"], **chosen).to(memory_format=torch.channels_last)
        if preprocessing is not None:
            size = preprocessing.image_size
            self.example_input_array = torch.zeros(1, self.network.config.in_channels, size, size)

    def _datamodule(self) -> object | None:
        return None if self._trainer is None else getattr(self._trainer, "datamodule", None)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of a batch of images."""
        logits: Tensor = self.network(images.contiguous(memory_format=torch.channels_last))
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross entropy of one batch, with label smoothing."""
        images, labels = batch
        logits = self(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.hparams["label_smoothing"])
        accuracy = (logits.argmax(1) == labels).float().mean()
        metrics = {"train_loss": loss, "train_accuracy": accuracy}
        shared = self._trainer is not None and self.trainer.world_size > 1
        self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=len(labels), sync_dist=shared)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure one batch of the validation data."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure one batch of the test data."""
        self._evaluate(batch, "test")

    def _evaluate(self, batch: Batch, stage: str) -> None:
        images, labels = batch
        logits = self(images)
        classes = logits.shape[1]
        metrics = {
            f"{stage}_loss": F.cross_entropy(logits, labels),
            f"{stage}_accuracy": _hits(logits, labels, 1),
        }
        if classes > 5:
            metrics[f"{stage}_accuracy_top5"] = _hits(logits, labels, 5)
        self.log_dict(metrics, batch_size=len(labels), sync_dist=self.trainer.world_size > 1)
        counts = confusion_counts(logits.argmax(1), labels, classes)
        self._counts = counts if self._counts is None else self._counts + counts

    def on_validation_epoch_start(self) -> None:
        """Begin new counts."""
        self._counts = None

    def on_validation_epoch_end(self) -> None:
        """Sum the counts over all processes."""
        if self._counts is not None:
            # Not a buffer: the averaging of weights would average it.
            total = self.trainer.strategy.reduce(self._counts, reduce_op="sum")
            self.confusion_matrix = cast(Tensor, total).cpu()

    def on_test_epoch_start(self) -> None:
        """Begin new counts."""
        self._counts = None

    def on_test_epoch_end(self) -> None:
        """Sum the counts over all processes."""
        self.on_validation_epoch_end()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Optimizer for the real global batch; schedule for the number of steps this trainer will make.

        Raises:
            ConfigError: the number of steps is not known, so that a schedule has no end.
        """
        self.trainer.fit_loop.setup_data()  # else the numbers below are not known yet
        total = self.trainer.estimated_stepping_batches
        if math.isinf(total) or math.isinf(self.trainer.num_training_batches):
            got = f"max_epochs={self.trainer.max_epochs}"
            hint = "give --trainer.max_epochs or --trainer.max_steps."
            raise ConfigError(message("fit", "the schedule needs an end", got, hint=hint))
        epoch_steps = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        optimizer = build_optimizer(self.network, self.optimizer, self.global_batch_size())
        schedule = build_schedule(optimizer, self.optimizer, int(total), epoch_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def global_batch_size(self) -> int:
        """Images per optimizer step: per process x accumulated batches x processes of all nodes."""
        loader = self.trainer.train_dataloader
        per_process = getattr(loader, "batch_size", None)
        if per_process is None:
            per_process = _of_data(self._datamodule(), "batch_size")
        return int(per_process) * self.trainer.accumulate_grad_batches * self.trainer.world_size

    def on_train_start(self) -> None:
        """Let the first step after a resume follow this run's schedule, not the one of the checkpoint."""
        schedule = self.lr_schedulers()
        assert isinstance(schedule, torch.optim.lr_scheduler.LambdaLR)
        for group, base, share in zip(
            schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
        ):
            group["lr"] = base * share(schedule.last_epoch)

    def configure_callbacks(self) -> list[pl.Callback]:
        """The averaging of weights, while fitting."""
        decay = self.optimizer.ema_decay
        if decay is None or self.trainer.state.fn != TrainerFn.FITTING:
            return []
        return [AveragedWeights(decay=decay)]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network.

        Raises:
            CheckpointError: the checkpoint holds another network than this task.
        """
        saved = checkpoint.get("hyper_parameters", {})
        differing = [name for name in NETWORK_FIELDS if saved.get(name) != self.hparams[name]]
        if differing:
            lines = [
                f"{name}: {self.hparams[name]!r} here, {saved.get(name)!r} in the file" for name in differing
            ]
            hint = "give the settings of its own run, as in --config runs/NAME/config.yaml."
            got = f"a checkpoint of {saved.get('model')!r}"
            must = f"the checkpoint must be of {self.hparams['model']!r} as configured"
            raise CheckpointError(message("ClassificationTask", must, got, lines=lines, hint=hint))


def confusion_counts(
    predicted: Int[Tensor, " batch"], labels: Int[Tensor, " batch"], classes: int
) -> Int[Tensor, "classes classes"]:
    """How often each true class (row) was taken for each class (column).

    Example:
        >>> confusion_counts(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), 2).tolist()
        [[1, 1], [0, 1]]
    """
    return torch.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def _hits(logits: Tensor, labels: Tensor, best: int) -> Tensor:
    return (logits.topk(best, dim=1).indices == labels[:, None]).any(1).float().mean()


def _of_data(data: object | None, name: str) -> int:
    value = getattr(data, name, None)
    if value is None:
        hint = f"train with a data module that has {name}, or give {name} to the task."
        raise ConfigError(message("ClassificationTask", f"the data must say {name}", value, hint=hint))
    return int(value)
