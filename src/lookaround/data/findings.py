"""What was wrong with a set of boxes, counted while it is read and told in one summary."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

NAMED = 3  # examples that a summary names for each kind


class Kind(Enum):
    """Everything that can be wrong without the set being refused, and what is done about it."""

    BAD_IMAGE_ENTRY = "image entries without a whole-number id or a file name", "dropped"
    REPEATED_IMAGE_ID = "images with an id that an earlier image has", "dropped"
    OUTSIDE_FOLDER = "images whose file name leads out of the image folder", "dropped"
    MISSING_FILE = "images without a file", "dropped"
    UNREADABLE_FILE = "images whose file cannot be read", "dropped"
    OTHER_SIZE = "images of another size than their description says", "dropped"
    BAD_DESCRIPTION = "files that cannot be read as a description of one image", "dropped"
    BAD_ANNOTATION = "annotations that are not a mapping", "dropped"
    NO_IMAGE = "boxes with an image id that no image has", "dropped"
    IMAGE_DROPPED = "boxes of images that were dropped", "dropped"
    UNKNOWN_CATEGORY = "boxes of an unknown category", "dropped"
    REPEATED_ANNOTATION = "boxes that repeat an earlier one, id and all", "dropped"
    REPEATED_ANNOTATION_ID = "boxes with an id that another box has", "kept"
    NOT_FINITE = "boxes that are not four finite numbers", "dropped"
    NO_AREA = "boxes of zero or negative size", "dropped"
    OUTSIDE_IMAGE = "boxes that lie outside their image", "dropped"
    CLIPPED = "boxes that reach over the border by more than a pixel", "clipped"
    REPEATED_CATEGORY = "categories listed twice", "merged"

    @property
    def what(self) -> str:
        """What was found, in the plural."""
        return self.value[0]

    @property
    def outcome(self) -> str:
        """What is done about it."""
        return self.value[1]


@dataclass(frozen=True)
class Finding:
    """How often something was found, and where first."""

    kind: Kind
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        more = ", …" if self.count > len(self.examples) else ""
        return f"{self.count} {self.kind.what}: {self.kind.outcome} ({', '.join(self.examples)}{more})"


class Findings:
    """Counts while files are read.

    Example:
        >>> findings = Findings()
        >>> findings.add(Kind.MISSING_FILE, "7.png")
        >>> print(*findings.listed())
        1 images without a file: dropped (7.png)
    """

    def __init__(self) -> None:
        self._counts: dict[Kind, int] = {}
        self._examples: dict[Kind, list[str]] = {}

    def add(self, kind: Kind, example: object) -> None:
        """Count one; `example` says where it is."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        examples = self._examples.setdefault(kind, [])
        if len(examples) < NAMED:
            examples.append(f"{example!s:.120}")

    def listed(self) -> tuple[Finding, ...]:
        """Everything found so far, in the order of `Kind`."""
        return tuple(
            Finding(kind, self._counts[kind], tuple(self._examples[kind]))
            for kind in Kind
            if kind in self._counts
        )


@dataclass(frozen=True)
class ReadingSummary:
    """What a set of boxes holds, and what was wrong with it; `str` gives it as text.

    Args:
        source: the file or folder that was read.
        images: how many are left, those without boxes too.
        empty_images: how many of them have no box.
        boxes: how many are left, crowd boxes too.
        crowd_boxes: how many of them stand for a crowd or a difficult object.
        findings: what was wrong.
    """

    source: str
    images: int
    empty_images: int
    boxes: int
    crowd_boxes: int
    findings: tuple[Finding, ...] = ()

    def count(self, kind: Kind) -> int:
        """How often `kind` was found."""
        return sum(finding.count for finding in self.findings if finding.kind is kind)

    def __str__(self) -> str:
        head = (
            f"{self.source}: {self.images} images ({self.empty_images} without boxes), "
            f"{self.boxes} boxes ({self.crowd_boxes} crowd)"
        )
        return "\n".join([head, *(f"  {finding}" for finding in self.findings)])


def joined(summaries: Sequence[ReadingSummary]) -> str:
    """One text of several summaries."""
    return "\n".join(str(summary) for summary in summaries)
