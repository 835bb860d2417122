"""The detector: backbone, pyramid and heads of ours in torchvision's RetinaNet."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchvision.models import detection
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from lookaround.errors import ArgumentError, DtypeError, ShapeError, message
from lookaround.models.anchors import LevelAnchors
from lookaround.models.detection_loss import assign, detection_losses
from lookaround.models.heads import DetectionHead
from lookaround.models.padding import Mask, padding_mask, shrink_mask
from lookaround.models.pyramid import PyramidBackbone
from lookaround.models.retinanet_config import RetinaNetConfig

SIZE_DIVISIBLE = 32  # batches are padded to multiples of it
Target = dict[str, Tensor]


@dataclass(frozen=True)
class Predicted:
    """What is said of the anchors that lie in images of a batch, and not in its padding.

    Attributes:
        parts: `cls_logits` and `bbox_regression`, of each level and image: anchors numbers.
        anchors: of each image and level: anchors 4.
        image_sizes: height and width of each image.
    """

    parts: dict[str, list[list[Tensor]]]
    anchors: list[list[Tensor]]
    image_sizes: list[tuple[int, int]]


class RetinaNet(detection.RetinaNet):  # type: ignore[misc]  # torchvision has no types
    """Finds objects: boxes, classes and scores.

    As torchvision's detectors it takes a list of images of any sizes. In training mode it takes their objects
    too and returns losses; in eval mode it returns what it found. As for every network here, the images are
    normalised before: the network neither resizes them nor changes their values.

    The images are put together into one batch, smaller ones padded. No spatial layer sees the padding, and
    its anchors count neither in the losses nor among the detections, so that each image gets the detections
    that it would get alone. (While training, the statistics of a batch norm are those of the whole batch,
    padding included.)

    Args:
        config: what it is made of; `lookaround.create_model` makes one from a name.

    Source:
        Lin et al. 2017, Focal Loss for Dense Object Detection; Ramachandran et al. 2019, section 4.2 and
        appendix, for attention in it.

    Departures from the paper:
        Where it is silent: norms in pyramid and heads, thresholds of overlap and of score.

    Example:
        >>> import torch
        >>> from lookaround import create_model
        >>> model = create_model("sasa_retinanet_resnet14_small", num_classes=3).eval()
        >>> found = model([torch.rand(3, 64, 96), torch.rand(3, 128, 128)])
        >>> sorted(found[0])
        ['boxes', 'labels', 'scores']
    """

    def __init__(self, config: RetinaNetConfig) -> None:
        anchors = LevelAnchors(config)
        super().__init__(
            PyramidBackbone(config),
            config.num_classes,
            anchor_generator=anchors,
            head=DetectionHead(config, anchors.num_anchors_per_location()[0]),
            score_thresh=config.score_threshold,
            nms_thresh=config.nms_threshold,
            detections_per_img=config.detections_per_image,
            fg_iou_thresh=config.foreground_iou,
            bg_iou_thresh=config.background_iou,
            topk_candidates=config.candidates_per_level,
        )
        self.transform = Batching(SIZE_DIVISIBLE, SIZE_DIVISIBLE, [], [], SIZE_DIVISIBLE)
        self.config = config

    def network(
        self,
        images: Float[Tensor, "batch channels height width"],
        key_padding_mask: Bool[Tensor, "batch height width"] | None = None,
    ) -> dict[str, list[Tensor]]:
        """Return what the layers predict for each level, before anything is chosen.

        Args:
            images: a batch, normalised.
            key_padding_mask: True for pixels that are no part of an image.

        Returns:
            cls_logits: for each level batch anchors num_classes.
            bbox_regression: for each level batch anchors 4, relative to the anchors.
        """
        maps, masks = self.backbone(images, key_padding_mask)
        outputs: dict[str, list[Tensor]] = self.head(maps, masks)
        return outputs

    def forward(
        self, images: list[Tensor], targets: list[Target] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Return the losses in training mode, the detections in eval mode.

        Args:
            images: each channels height width, normalised.
            targets: of each image `boxes`, objects x1 y1 x2 y2 in pixels, and `labels`, objects, from 0 to
                num_classes - 1; for training alone.

        Returns:
            In training mode `classification` and `bbox_regression`, to be added. In eval mode for each image
            `boxes`, `labels` and `scores`, the best first.

        Raises:
            ShapeError: an image or a target has not the shape that it must have.
            DtypeError: an image holds integers.
            ArgumentError: targets are missing in training mode, or hold boxes without area or other labels.
        """
        check_images(images, self.config.in_channels)
        if self.training:
            check_targets(images, targets, self.config.num_classes)
        predicted = self._predict(images)
        if self.training and targets is not None:
            return self._losses(predicted, targets)
        return self._detections(predicted)

    def evaluate(
        self, images: list[Tensor], targets: list[Target]
    ) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        """Return both what `forward` returns in training mode and in eval mode, of one pass.

        Args:
            images: each channels height width, normalised.
            targets: of each image `boxes` and `labels`, as for training.

        Raises:
            ShapeError: an image or a target has not the shape that it must have.
            DtypeError: an image holds integers.
            ArgumentError: targets hold boxes without area or labels that there are not.
        """
        check_images(images, self.config.in_channels)
        check_targets(images, targets, self.config.num_classes)
        predicted = self._predict(images)
        return self._losses(predicted, targets), self._detections(predicted)

    def _predict(self, images: list[Tensor]) -> Predicted:
        batch, _ = self.transform(images)
        mask = padding_mask(batch.tensors, batch.image_sizes)
        outputs = self.network(batch.tensors, mask)
        anchors = self.anchor_generator.by_level(batch.tensors.shape[-2:], batch.tensors.device)
        parts = {name: self._split(levels, mask) for name, levels in outputs.items()}
        placed = self._split([x.expand(len(images), -1, -1) for x in anchors], mask)
        by_image = [list(levels) for levels in zip(*placed, strict=True)]
        return Predicted(parts, by_image, batch.image_sizes)

    def _detections(self, predicted: Predicted) -> list[dict[str, Tensor]]:
        found: list[dict[str, Tensor]] = self.postprocess_detections(
            predicted.parts, predicted.anchors, predicted.image_sizes
        )
        return found

    def _split(self, levels: list[Tensor], mask: Mask) -> list[list[Tensor]]:
        """Take apart what each level says of batch anchors; leave out the anchors in the padding."""
        if mask is None:
            return [list(x.float().unbind()) for x in levels]
        parts = []
        for level, x in zip(self.config.levels, levels, strict=True):
            padding = shrink_mask(mask, 2**level)
            assert padding is not None
            pixels = (~padding).flatten(1)
            present = pixels.repeat_interleave(x.shape[1] // pixels.shape[1], dim=1)
            parts.append([values[here] for values, here in zip(x.float(), present, strict=True)])
        return parts

    def _losses(self, predicted: Predicted, targets: list[Target]) -> dict[str, Tensor]:
        logits, deltas = (
            [torch.cat(levels) for levels in zip(*predicted.parts[name], strict=True)]
            for name in ("cls_logits", "bbox_regression")
        )
        joined = [torch.cat(levels) for levels in predicted.anchors]
        pairs = zip(joined, targets, strict=True)
        assigned = [assign(boxes, target, self.proposal_matcher) for boxes, target in pairs]
        return detection_losses(logits, deltas, joined, assigned, self.config)


class Batching(GeneralizedRCNNTransform):  # type: ignore[misc]  # torchvision has no types
    """Puts images of different sizes into one batch, and leaves their values and sizes alone."""

    def normalize(self, image: Tensor) -> Tensor:
        """Return the image: the data has normalised it."""
        return image

    def resize(self, image: Tensor, target: Target | None = None) -> tuple[Tensor, Target | None]:
        """Return both: the data has resized them."""
        return image, target


def check_images(images: Sequence[Tensor], in_channels: int) -> None:
    """Refuse what is no list of images with so many channels.

    Raises:
        ShapeError: an image has another shape, or there is none.
        DtypeError: an image holds integers.
    """
    shapes = [tuple(image.shape) for image in images]
    if not shapes:
        raise ShapeError(message("RetinaNet", "images must hold at least one image", "none"))
    for index, shape in enumerate(shapes):
        if len(shape) != 3 or shape[0] != in_channels or min(shape) < 1:
            must = f"each image must have the shape ({in_channels}, height, width)"
            raise ShapeError(message("RetinaNet", must, f"{shape} at index {index}"))
        if not images[index].is_floating_point():
            must, got = (
                "images must be floating-point and normalised",
                f"{images[index].dtype} at index {index}",
            )
            raise DtypeError(message("RetinaNet", must, got))


def check_targets(images: Sequence[Tensor], targets: Sequence[Target] | None, num_classes: int) -> None:
    """Refuse targets that cannot be learnt from.

    Raises:
        ArgumentError: they are missing, their number is another, or they hold labels or boxes that cannot be.
        ShapeError: boxes or labels have another shape.
    """
    if targets is None or len(targets) != len(images):
        got = "None" if targets is None else f"{len(targets)} for {len(images)} images"
        hint = "call .eval() on the model to detect."
        must = "training needs targets, one for each image"
        raise ArgumentError(message("RetinaNet", must, got, hint=hint))
    for index, target in enumerate(targets):
        missing = {"boxes", "labels"} - set(target)
        if missing:
            must = f"targets[{index}] must have boxes and labels"
            raise ArgumentError(message("RetinaNet", must, f"no {' and no '.join(sorted(missing))}"))
        boxes, labels = target["boxes"], target["labels"]
        if boxes.dim() != 2 or boxes.shape[1] != 4 or labels.shape != boxes.shape[:1]:
            must = f"targets[{index}] must have boxes of shape (objects, 4) and labels of shape (objects,)"
            raise ShapeError(message("RetinaNet", must, f"{tuple(boxes.shape)} and {tuple(labels.shape)}"))
        fits = (boxes[:, 2:] > boxes[:, :2]).all(1) & boxes.isfinite().all(1)
        if not fits.all():
            must = f"boxes of targets[{index}] must be finite, with x1 < x2 and y1 < y2"
            raise ArgumentError(message("RetinaNet", must, boxes[~fits][0].tolist()))
        wrong = labels[(labels < 0) | (labels >= num_classes)]
        if len(wrong) > 0:
            must = f"labels of targets[{index}] must be from 0 to {num_classes - 1}"
            raise ArgumentError(message("RetinaNet", must, int(wrong[0])))
