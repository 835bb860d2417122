"""Images with boxes in one plain form, whatever kind of file they were described in."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from lookaround.data.findings import Finding, Findings, Kind, ReadingSummary
from lookaround.data.images import check_image, upright_size
from lookaround.errors import DataError, message

# In pixels. Thinner boxes have no width left once they are stored as float32 or the image is scaled down.
SMALLEST_SIDE = 0.1
# Boxes are rounded by the tools that write them: to reach over the border by up to a pixel is no fault.
BORDER_TOLERANCE = 1.0

Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class Box:
    """One object: corners x1 y1 x2 y2 in pixels, its label from 0, its area, whether it is a crowd."""

    corners: Corners
    label: int
    area: float
    crowd: bool = False


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """An image file and its boxes.

    Args:
        image_id: number of the image, unique in its set.
        path: where the file is.
        width: of the upright image, in pixels.
        height: likewise.
        boxes: x1 y1 x2 y2 in pixels, within the image, wider and higher than 0.
        labels: contiguous, from 0.
        areas: in square pixels; of the object's outline where the file tells it, else of the box.
        crowd: True for a box around many objects (COCO) or a difficult one (VOC): not trained on, and no
            fault when missed.
    """

    image_id: int
    path: str
    width: int
    height: int
    boxes: Float64[np.ndarray, "boxes 4"]
    labels: Int64[np.ndarray, " boxes"]
    areas: Float64[np.ndarray, " boxes"]
    crowd: Bool[np.ndarray, " boxes"]

    @classmethod
    def of(
        cls, image_id: int, path: str | Path, size: tuple[int, int], boxes: Sequence[Box]
    ) -> "AnnotatedImage":
        """Build from single boxes; size is (width, height)."""
        return cls(
            image_id,
            str(path),
            *size,
            boxes=np.array([box.corners for box in boxes], dtype=np.float64).reshape(-1, 4),
            labels=np.array([box.label for box in boxes], dtype=np.int64),
            areas=np.array([box.area for box in boxes], dtype=np.float64),
            crowd=np.array([box.crowd for box in boxes], dtype=np.bool_),
        )


@dataclass(frozen=True)
class Categories:
    """Names of the labels 0, 1, … and the id that each has in the files."""

    names: tuple[str, ...]
    ids: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Annotations:
    """A set of images with boxes."""

    images: tuple[AnnotatedImage, ...]
    categories: Categories
    summary: ReadingSummary

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def of(
        cls, source: object, images: Sequence[AnnotatedImage], categories: Categories, findings: Findings
    ) -> "Annotations":
        """Build with a summary.

        Raises:
            DataError: there is no image.
        """
        listed = findings.listed()
        if not images:
            lines = [str(finding) for finding in listed]
            must = "there must be at least one image that can be used"
            hint = "check the image folder and the file names in the annotations."
            raise DataError(message("annotations", must, f"none in {str(source)!r}", lines=lines, hint=hint))
        return cls(tuple(images), categories, summarise(str(source), images, listed))

    def select(self, indices: Sequence[int]) -> "Annotations":
        """Return some of the images; the summary keeps telling what was wrong with all."""
        images = tuple(self.images[index] for index in indices)
        return Annotations(
            images, self.categories, summarise(self.summary.source, images, self.summary.findings)
        )

    def to_coco(self) -> dict[str, Any]:
        """Return what was kept as a COCO document of plain types, category ids as in the files.

        Boxes are numbered from 1: evaluators take the id 0 for "none".
        """
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for image in self.images:
            entry = {"id": image.image_id, "file_name": Path(image.path).name}
            images.append(entry | {"width": image.width, "height": image.height})
            rows = zip(image.boxes.tolist(), image.labels, image.areas, image.crowd, strict=True)
            for (x1, y1, x2, y2), label, area, crowd in rows:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image.image_id,
                        "category_id": self.categories.ids[label],
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": float(area),
                        "iscrowd": int(crowd),
                    }
                )
        pairs = zip(self.categories.ids, self.categories.names, strict=True)
        categories = [{"id": number, "name": name} for number, name in pairs]
        return {"images": images, "annotations": annotations, "categories": categories}


def summarise(source: str, images: Sequence[AnnotatedImage], findings: tuple[Finding, ...]) -> ReadingSummary:
    """Count images and boxes."""
    return ReadingSummary(
        source,
        len(images),
        sum(len(image.labels) == 0 for image in images),
        sum(len(image.labels) for image in images),
        sum(int(image.crowd.sum()) for image in images),
        findings,
    )


def clean_corners(
    corners: Sequence[object], size: tuple[int, int], where: str, findings: Findings
) -> Corners | None:
    """Return the part of a box that lies in an image of size (width, height); None if it must be dropped.

    Example:
        >>> findings = Findings()
        >>> clean_corners((-4, 2, 6, 8), (20, 10), "box 1", findings)
        (0.0, 2.0, 6.0, 8.0)
        >>> print(*findings.listed())
        1 boxes that reach over the border by more than a pixel: clipped (box 1)
    """
    numbers = [as_finite(value) for value in corners]
    if len(numbers) != 4 or None in numbers:
        findings.add(Kind.NOT_FINITE, where)
        return None
    x1, y1, x2, y2 = (float(number) for number in numbers if number is not None)
    width, height = size
    if x2 - x1 < SMALLEST_SIDE or y2 - y1 < SMALLEST_SIDE:
        findings.add(Kind.NO_AREA, where)
        return None
    inside = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    if inside[2] - inside[0] < SMALLEST_SIDE or inside[3] - inside[1] < SMALLEST_SIDE:
        findings.add(Kind.OUTSIDE_IMAGE, where)
        return None
    if max(-x1, -y1, x2 - width, y2 - height) > BORDER_TOLERANCE:
        findings.add(Kind.CLIPPED, where)
    return inside


def as_finite(value: object) -> float | None:
    """Return the value as a float if it is a finite number, else None; True and "1" are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def usable_size(
    path: Path, said: tuple[int, int] | None, verify: bool, findings: Findings
) -> tuple[int, int] | None:
    """Return width and height of an image file; None if it must be dropped.

    Args:
        path: the file.
        said: width and height as the description has them, None if it has none.
        verify: whether to look into the file; without, what was said is believed.
        findings: takes note of what is wrong.
    """
    if not path.is_file():
        findings.add(Kind.MISSING_FILE, path)
        return None
    if not verify and said is not None:
        return said
    try:
        if verify:
            check_image(path)
        found = upright_size(path)
    except DataError:
        findings.add(Kind.UNREADABLE_FILE, path)
        return None
    if said not in (None, found):
        findings.add(Kind.OTHER_SIZE, path)
        return None
    return found
