"""Whether two lists of detections are one, computed twice.

Rounding may change which of two boxes of nearly one score suppresses the other, or which comes last. So a box
that one side has must be a box of the other, or have a reason to be absent from it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

SAME_BOX = 0.9  # overlap from which two boxes are one
NEAR = 1.0  # pixels up to which the corners of two boxes are one; a box without area overlaps nothing
SAME_PLACE = 1e3  # pixels that a difference of scores by 1 weighs
SLACK = 0.05  # of the overlap from which a box suppresses another
Boxes = tuple[Tensor, Tensor, Tensor]  # boxes, scores and labels of one image


def compare_boxes(
    found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float, nms_threshold: float
) -> tuple[dict[str, float], list[str], int]:
    """Compare boxes, scores, labels and counts, as `DetectorGraph` puts them out.

    Args:
        found: of the export.
        expected: of the network.
        tolerance: largest difference of scores over the largest score.
        nms_threshold: overlap from which a box suppresses another.

    Returns:
        The largest difference of boxes (in pixels) and of scores; what is wrong; how many boxes there were.
    """
    worst = {"boxes": 0.0, "scores": 0.0}
    problems: list[str] = []
    for name, mine, theirs in zip(("boxes", "scores", "labels", "counts"), found, expected, strict=True):
        if mine.shape != theirs.shape or not mine.isfinite().all():
            problems.append(f"{name}: expected finite {tuple(theirs.shape)}; actual: {tuple(mine.shape)}")
    if problems:
        return worst, problems, 0
    for image in range(len(expected[0])):
        one, other = _take(found, image), _take(expected, image)
        highest = max((float(scores.max()) for _, scores, _ in (one, other) if len(scores)), default=0.0)
        allowed = {"boxes": tolerance * float(expected[0].max()), "scores": tolerance * highest}
        for name, here, there in (("missing", other, one), ("not expected", one, other)):
            lost = _unexplained(here, there, allowed["scores"], nms_threshold - SLACK)
            problems += [f"image {image}: {name}: {row}" for row in lost]
        for name, value in _differences(one, other).items():
            worst[name] = max(worst[name], value)
            if value > allowed[name]:
                problems.append(f"image {image}: {name}: off by {value:.3g}; allowed: {allowed[name]:.3g}")
    return worst, problems, int(expected[3].sum())


def _take(outputs: Sequence[Tensor], image: int) -> Boxes:
    boxes, scores, labels, counts = (output[image] for output in outputs)
    count = int(counts)
    return boxes[:count], scores[:count], labels[:count]


def _overlaps(one: Boxes, other: Boxes) -> Tensor:
    """Return how much boxes of one label overlap, 1 where they are near; 0 between labels."""
    near = torch.cdist(one[0], other[0], p=float("inf")) <= NEAR
    overlaps: Tensor = box_iou(one[0], other[0]).nan_to_num().where(~near, 1.0)
    return overlaps * (one[2][:, None] == other[2])


def _unexplained(here: Boxes, there: Boxes, slack: float, suppressing: float) -> list[str]:
    """Describe the boxes of one side for which the other has neither the same nor one that suppresses it."""
    boxes, scores, labels = here
    present = (_overlaps(here, there) >= suppressing) & (there[1] >= scores[:, None] - slack)
    # The last of a list may have been cut off.
    last = float(there[1].min()) + slack if len(there[1]) else -1.0
    rows = (~present.any(1) & (scores > last)).nonzero().flatten().tolist()
    return [
        f"label {int(labels[row])}, score {float(scores[row]):.4f}, "
        f"box {', '.join(f'{corner:.1f}' for corner in boxes[row].tolist())}"
        for row in rows
    ]


def _differences(one: Boxes, other: Boxes) -> dict[str, float]:
    """Return the largest differences between boxes that are one."""
    if not len(one[1]) or not len(other[1]):
        return {}
    apart = torch.cdist(other[0], one[0], p=float("inf"))
    scores = (other[1][:, None] - one[1]).abs()
    # Of boxes without area there may be many in one place, told apart by their scores.
    partner = (apart + SAME_PLACE * scores).masked_fill(_overlaps(other, one) < SAME_BOX, torch.inf).min(1)
    pairs = partner.values.isfinite()
    if not pairs.any():
        return {}
    rows, columns = pairs.nonzero().flatten(), partner.indices[pairs]
    return {"boxes": float(apart[rows, columns].max()), "scores": float(scores[rows, columns].max())}
