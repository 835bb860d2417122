"""What the predictions of a batch lose against the objects that are there."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.ops import box_iou, sigmoid_focal_loss

from lookaround.models.retinanet_config import RetinaNetConfig


@dataclass(frozen=True)
class Assignment:
    """What the anchors of one image have to predict.

    Attributes:
        counts: whether an anchor counts in the loss of the classes: anchors.
        objects: whether it holds an object: anchors.
        labels: classes of those that do: objects.
        boxes: boxes of those that do: objects 4.
    """

    counts: Tensor
    objects: Tensor
    labels: Tensor
    boxes: Tensor


def assign(anchors: Tensor, target: dict[str, Tensor], matcher: Matcher) -> Assignment:
    """Give each anchor the object that it overlaps most, if it overlaps one enough.

    Every object also gets the anchors that overlap it most, however little that is.

    Args:
        anchors: of one image, without those in the padding: anchors 4.
        target: boxes and labels of the image's objects.
        matcher: torchvision's, with the thresholds of overlap.
    """
    boxes, labels = target["boxes"], target["labels"]
    if len(boxes) == 0:
        none = anchors.new_zeros(len(anchors), dtype=torch.bool)
        return Assignment(~none, none, labels, boxes)
    matches = matcher(box_iou(boxes, anchors))
    objects = matches >= 0
    chosen = matches[objects]
    return Assignment(matches != Matcher.BETWEEN_THRESHOLDS, objects, labels[chosen], boxes[chosen])


def detection_losses(
    logits: list[Tensor],
    deltas: list[Tensor],
    anchors: list[Tensor],
    targets: list[Assignment],
    config: RetinaNetConfig,
) -> dict[str, Tensor]:
    """Sum the losses over all anchors of a batch, and divide by the number of those that hold an object.

    Args:
        logits: of each image: anchors num_classes.
        deltas: of each image: anchors 4.
        anchors: of each image: anchors 4.
        targets: of each image.
        config: the parameters of the losses.

    Returns:
        classification: focal loss, alpha and gamma from the config.
        bbox_regression: Huber loss, averaged over the four numbers of a box, times its weight.

    Source:
        Lin et al. 2017, Focal Loss; Ramachandran et al. 2019, appendix, for delta and weight.
    """
    objects = torch.cat([target.objects for target in targets])
    counts = torch.cat([target.counts for target in targets])
    labels, boxes = (torch.cat([getattr(target, name) for target in targets]) for name in ("labels", "boxes"))
    number = objects.sum().clamp(min=1)
    scores, shifts = torch.cat(logits).float(), torch.cat(deltas).float()[objects]

    wanted = torch.zeros_like(scores)
    wanted[objects.nonzero().squeeze(1), labels] = 1.0
    focal = sigmoid_focal_loss(
        scores[counts], wanted[counts], config.focal_alpha, config.focal_gamma, reduction="sum"
    )
    coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
    true_shifts = coder.encode_single(boxes.float(), torch.cat(anchors)[objects])
    huber = F.huber_loss(shifts, true_shifts, reduction="sum", delta=config.box_loss_delta)
    return {
        "classification": focal / number,
        "bbox_regression": config.box_loss_weight * huber / (4 * number),
    }
