"""Training a named network to find the objects in a picture."""

from dataclasses import asdict
from typing import Any, cast

import torch
from torch import Tensor

from lookaround.data.annotations import Annotations
from lookaround.data.detection_dataset import DetectionBatch, Target, to_original
from lookaround.errors import ConfigError, message
from lookaround.models.checkpoint import load_backbone
from lookaround.models.retinanet import RetinaNet
from lookaround.models.variants import DETECTION
from lookaround.tasks.coco_metrics import CocoScores, Detection, as_detections, score_detections
from lookaround.tasks.network_task import NetworkTask
from lookaround.tasks.optimization import OptimizerConfig

DEFAULT_OPTIMIZER = OptimizerConfig()
LOSSES = {"classification": "class_loss", "bbox_regression": "box_loss"}
WATCHED = ("map", "map50")  # of COCO's figures, those that are logged while training


class DetectionTask(NetworkTask):
    """A detector, its two losses, COCO's figures, and the optimizer that trains it.

    The network is built when training or testing starts, with as many classes and channels as the data has.
    Logged each epoch: `train_loss` and `val_loss` with their parts `…_class_loss` and `…_box_loss`, `val_map`
    (mean average precision over overlaps of 0.5 to 0.95) and `val_map50`; in a test all twelve figures of
    COCO, by the names of `coco_metrics.FIGURES`. Figures are those of the boxes in pixels of the files. One
    that is not defined, for want of objects, is NaN.

    Args:
        model: name of a network, one of `lookaround.list_models(task="detection")`.
        overrides: what differs from the named network, as in `lookaround.create_model(model, **overrides)`.
        optimizer: optimizer, schedule and averaging of weights.
        backbone: run folder (or weights.safetensors) of a classification or a detection to take the weights
            of the backbone from; None: begin with random ones. Read when a training begins, not when it goes
            on.
        num_classes: number of classes; taken from the data if not given.
        in_channels: channels of an image; taken from the data if not given.

    Attributes:
        network: the network, once it is built.
        scores: COCO's figures and curves of the last validation or test.

    Raises:
        UnknownNameError: the network or an override is not known.
        ArgumentError: a value is out of its range, or the network is no detector.
    """

    network: RetinaNet

    def __init__(
        self,
        model: str,
        overrides: dict[str, Any] | None = None,
        optimizer: OptimizerConfig = DEFAULT_OPTIMIZER,
        backbone: str | None = None,
        num_classes: int | None = None,
        in_channels: int | None = None,
    ) -> None:
        settings = {
            "model": model,
            "overrides": {} if overrides is None else overrides,
            "optimizer": asdict(optimizer),
            "backbone": backbone,
            "num_classes": num_classes,
            "in_channels": in_channels,
        }
        super().__init__(DETECTION, settings, optimizer)
        self.scores: CocoScores | None = None
        self._found: dict[int, list[Detection]] = {}
        self._goes_on = False

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network; of this one, prefer its backbone.

        Raises:
            CheckpointError: the checkpoint holds another network than this task.
        """
        super().on_load_checkpoint(checkpoint)
        self._goes_on = True

    def on_fit_start(self) -> None:
        """Take the weights of the backbone from where they are said to be.

        Raises:
            CheckpointError: a file is missing or damaged, or its backbone is another.
        """
        if self.hparams["backbone"] is not None and not self._goes_on:
            load_backbone(self.network, self.hparams["backbone"])

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """Boxes, labels and scores of each image; the task must be in eval mode."""
        found = self.network(images)
        assert isinstance(found, list)
        return found

    def training_step(self, batch: DetectionBatch, batch_idx: int) -> Tensor:
        """Sum of both losses of one batch."""
        images, targets = batch
        losses = self.network(images, targets)
        assert isinstance(losses, dict)
        total = sum(losses.values(), start=torch.zeros((), device=self.device))
        self._log_losses("train", total, losses, len(images))
        return total

    def validation_step(self, batch: DetectionBatch, batch_idx: int) -> None:
        """Measure one batch of the validation data."""
        self._evaluate(batch, "val")

    def test_step(self, batch: DetectionBatch, batch_idx: int) -> None:
        """Measure one batch of the test data."""
        self._evaluate(batch, "test")

    def _evaluate(self, batch: DetectionBatch, stage: str) -> None:
        images, targets = batch
        losses, found = self.network.evaluate(images, [_without_crowds(target) for target in targets])
        total = sum(losses.values(), start=torch.zeros((), device=self.device))
        self._log_losses(stage, total, losses, len(images))
        ids = self._true_boxes(stage).categories.ids
        for image, target, boxes in zip(images, targets, found, strict=True):
            number = int(target["image_id"])
            original = to_original(boxes["boxes"], image, target)
            self._found[number] = as_detections(boxes, original, number, ids)

    def _log_losses(self, stage: str, total: Tensor, losses: dict[str, Tensor], images: int) -> None:
        values = {"loss": total} | {LOSSES[name]: value for name, value in losses.items()}
        shared = self._trainer is not None and self.trainer.world_size > 1
        metrics = {f"{stage}_{name}": value.detach() for name, value in values.items()}
        self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=images, sync_dist=shared)

    def _true_boxes(self, stage: str) -> Annotations:
        data = self._datamodule()
        if not hasattr(data, "annotations"):
            hint = "use lookaround.data.detection.DetectionData, or a data module with its `annotations`."
            must = "the data must tell the true boxes"
            raise ConfigError(message("DetectionTask", must, type(data).__name__, hint=hint))
        return cast(Annotations, cast(Any, data).annotations(stage))

    def on_validation_epoch_start(self) -> None:
        """Forget what was found before."""
        self._found = {}

    def on_test_epoch_start(self) -> None:
        """Forget what was found before."""
        self._found = {}

    def on_validation_epoch_end(self) -> None:
        """Log the figures that are watched while training."""
        scores = self._judge("val")
        watched = {f"val_{name}": scores.figures[name] for name in WATCHED}
        self.log_dict(watched, sync_dist=self.trainer.world_size > 1)

    def on_test_epoch_end(self) -> None:
        """Log all figures."""
        scores = self._judge("test")
        figures = {f"test_{name}": value for name, value in scores.figures.items()}
        self.log_dict(figures, sync_dist=self.trainer.world_size > 1)

    def _judge(self, stage: str) -> CocoScores:
        """Judge what all processes found together; an image that two looked at counts once."""
        everywhere = [self._found]
        if self.trainer.world_size > 1:
            everywhere = [{} for _ in range(self.trainer.world_size)]
            torch.distributed.all_gather_object(everywhere, self._found)
        found = {number: entries for part in everywhere for number, entries in part.items()}
        detections = [entry for number in sorted(found) for entry in found[number]]
        self.scores = score_detections(self._true_boxes(stage).to_coco(), detections, found)
        return self.scores


def _without_crowds(target: Target) -> Target:
    """Leave out boxes around many objects: they are no fault, and nothing to learn from."""
    single = target["iscrowd"] == 0
    return {"boxes": target["boxes"][single], "labels": target["labels"][single]}
