"""How good detections are, by the rules of COCO.

The counting is that of faster-coco-eval, which gives what pycocotools gives.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

# In the order of COCO's twelve; recall_N is the mean recall of the best N boxes of each image.
FIGURES = (
    "map",
    "map50",
    "map75",
    "map_small",
    "map_medium",
    "map_large",
    "recall_1",
    "recall_10",
    "recall_100",
    "recall_small",
    "recall_medium",
    "recall_large",
)
OVERLAPS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
RECALLS = 101  # 0, 0.01, … 1
Detection = dict[str, Any]
"""An entry of COCO's result format: image_id, category_id, bbox (x y width height) and score."""


@dataclass(frozen=True)
class ClassFigures:
    """How well one class is found.

    Attributes:
        name: of the class.
        objects: how many there are, crowds not counted.
        ap: average precision, mean over the overlaps 0.5 to 0.95; NaN without objects.
        ap50: at an overlap of 0.5.
        ap75: at an overlap of 0.75.
    """

    name: str
    objects: int
    ap: float
    ap50: float
    ap75: float


@dataclass(frozen=True, eq=False)
class CocoScores:
    """What COCO says of some detections.

    Attributes:
        figures: COCO's twelve, by their names in `FIGURES`; NaN where there are no objects to find.
        classes: of each class.
        precision: at recalls 0, 0.01, … 1 for each of `OVERLAPS` and each class; NaN without objects.
        detections: what was judged.
        images: how many images were looked at.
    """

    figures: dict[str, float]
    classes: tuple[ClassFigures, ...]
    precision: Float[np.ndarray, "overlaps recalls classes"]
    detections: tuple[Detection, ...]
    images: int


def score_detections(
    truth: Mapping[str, Any], detections: Sequence[Detection], image_ids: Iterable[int]
) -> CocoScores:
    """Judge detections against the true boxes of some images.

    Args:
        truth: a COCO document, as `data.annotations.Annotations.to_coco` gives.
        detections: in COCO's result format, in pixels of the same files.
        image_ids: the images that were looked at, those without detections too.

    Example:
        >>> box = {"image_id": 1, "category_id": 7, "bbox": [10.0, 10.0, 20.0, 20.0]}
        >>> truth = {
        ...     "images": [{"id": 1, "width": 64, "height": 64}],
        ...     "annotations": [box | {"id": 1, "area": 400.0, "iscrowd": 0}],
        ...     "categories": [{"id": 7, "name": "seven"}],
        ... }
        >>> round(score_detections(truth, [box | {"score": 0.9}], [1]).figures["map"], 3)
        1.0
    """
    from faster_coco_eval import COCO, COCOeval_faster

    looked_at = sorted(set(image_ids))
    true_boxes, found = COCO(dict(truth)), COCO(_document(truth, detections))
    evaluation = COCOeval_faster(true_boxes, found, "bbox")
    evaluation.params.imgIds = looked_at
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    figures = {name: _defined(value) for name, value in zip(FIGURES, evaluation.stats[:12], strict=True)}
    # overlaps recalls classes sizes limits: all sizes, 100 boxes an image
    precision = np.asarray(evaluation.eval["precision"], dtype=np.float64)[:, :, :, 0, -1]
    precision = np.where(precision < 0, math.nan, precision)
    classes = _by_class(truth, precision, set(looked_at))
    return CocoScores(figures, classes, precision, tuple(detections), len(looked_at))


def as_detections(
    found: Mapping[str, Tensor],
    boxes: Float[Tensor, "boxes 4"],
    image_id: int,
    category_ids: Sequence[int],
) -> list[Detection]:
    """Write what a detector found in one image in COCO's result format.

    Args:
        found: `labels` and `scores`, as a detector gives them.
        boxes: its boxes, x1 y1 x2 y2 in pixels of the file.
        image_id: number of the image.
        category_ids: the id of each label.
    """
    rows = zip(boxes.tolist(), found["labels"].tolist(), found["scores"].tolist(), strict=True)
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[label],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for (x1, y1, x2, y2), label, score in rows
    ]


def _document(truth: Mapping[str, Any], detections: Sequence[Detection]) -> dict[str, Any]:
    """Return the detections as a COCO document; `loadRes` of some versions refuses an empty list."""
    annotations = [
        {**entry, "id": number, "area": entry["bbox"][2] * entry["bbox"][3], "iscrowd": 0}
        for number, entry in enumerate(detections, start=1)
    ]
    return {"images": truth["images"], "categories": truth["categories"], "annotations": annotations}


def _by_class(
    truth: Mapping[str, Any], precision: Float[np.ndarray, "overlaps recalls classes"], images: set[int]
) -> tuple[ClassFigures, ...]:
    counted = [
        entry["category_id"]
        for entry in truth["annotations"]
        if entry["image_id"] in images and not entry["iscrowd"]
    ]
    rows = []
    # The evaluation sorts the categories by their ids.
    for index, category in enumerate(sorted(truth["categories"], key=lambda entry: int(entry["id"]))):
        own = precision[:, :, index]
        means = (own, own[0], own[OVERLAPS.index(0.75)])
        values = [float(part.mean()) for part in means]
        rows.append(ClassFigures(category["name"], counted.count(category["id"]), *values))
    return tuple(rows)


def _defined(value: float) -> float:
    """COCO says -1 where there was nothing to find."""
    return math.nan if value < 0 else float(value)
