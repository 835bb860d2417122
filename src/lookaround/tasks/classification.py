"""Training a named network to say what is in a picture."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lookaround.errors import ArgumentError, message
from lookaround.models import ResNet
from lookaround.models.variants import CLASSIFICATION
from lookaround.tasks.network_task import NetworkTask
from lookaround.tasks.optimization import OptimizerConfig

Batch = Sequence[Tensor]
DEFAULT_OPTIMIZER = OptimizerConfig()


class ClassificationTask(NetworkTask):
    """A network, cross entropy, accuracy, and the optimizer that trains it.

    The network is built when training or testing starts, with as many classes and channels as the data has.
    Images are put into channels-last order. Logged each epoch: `train_loss` (with label smoothing),
    `train_accuracy`, and for `val` and `test` the loss (without smoothing), the accuracy and, above five
    classes, `accuracy_top5`.

    Args:
        model: name of a network, one of `lookaround.list_models(task="classification")`.
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
        ArgumentError: a value is out of its range, or the network is a detector.
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
        if not 0 <= label_smoothing < 1:
            must = "label_smoothing must be at least 0 and below 1"
            raise ArgumentError(message("ClassificationTask", must, label_smoothing))
        settings = {
            "model": model,
            "overrides": {} if overrides is None else overrides,
            "optimizer": asdict(optimizer),
            "label_smoothing": label_smoothing,
            "num_classes": num_classes,
            "in_channels": in_channels,
        }
        super().__init__(CLASSIFICATION, settings, optimizer)
        self.confusion_matrix: Tensor | None = None
        self._counts: Tensor | None = None

    def configure_model(self) -> None:
        """Build the network, once, for the classes and channels of the data.

        Raises:
            ConfigError: neither the data nor the arguments say how many classes or channels there are.
        """
        super().configure_model()
        preprocessing = getattr(self._datamodule(), "preprocessing", None)
        if preprocessing is not None and self.example_input_array is None:
            size = preprocessing.image_size
            self.example_input_array = torch.zeros(1, self.network.config.in_channels, size, size)

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
