"""Reading COCO json: a list of images, a list of boxes, a list of categories.

Segmentations, keypoints and captions are passed over, so that run-length masks cost nothing.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lookaround.data.annotations import (
    AnnotatedImage,
    Annotations,
    Box,
    Categories,
    as_finite,
    clean_corners,
    usable_size,
)
from lookaround.data.findings import Findings, Kind
from lookaround.errors import DataError, message

LISTS = ("images", "annotations", "categories")
PROBED_FILES = 20


def read_coco(
    file: str | Path,
    image_folder: str | Path | Sequence[Path],
    categories: Categories | None = None,
    verify: bool = True,
) -> Annotations:
    """Read a COCO json file and look for its images.

    What is wrong with single entries is counted in the summary of the result and dealt with as
    `findings.Kind` says; it raises nothing.

    Args:
        file: the json.
        image_folder: where the images lie; of several folders, the one that holds most of the first images.
        categories: those of the training part, where this is another part: boxes of others are dropped.
        verify: whether to look into every image file.

    Returns:
        Images in the order of the file, labels in the order of the category ids.

    Raises:
        DataError: the file is not COCO json, its categories contradict each other or those given, or no
            image is left.
    """
    findings = Findings()
    document = _load(Path(file))
    own = read_categories(document["categories"], file, findings)
    entries = _image_entries(document["images"], findings)
    folders = [Path(image_folder)] if isinstance(image_folder, str | Path) else list(image_folder)
    folder = choose_folder([entry["file_name"] for entry in entries.values()], folders)
    found = {number: _find_image(entry, folder, verify, findings) for number, entry in entries.items()}
    chosen = own if categories is None else categories
    if categories is not None:
        _check_same_names(own, categories, file)
    boxes = _boxes(document["annotations"], found, chosen, findings)
    images = [
        AnnotatedImage.of(number, place[0], place[1], boxes.get(number, ()))
        for number, place in found.items()
        if place is not None
    ]
    return Annotations.of(file, images, chosen, findings)


def _load(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:  # the last is of deep nesting
        reason = f"reason: {error!s:.200}"
        must = "the annotations must be a JSON file that can be read"
        raise DataError(message("read_coco", must, repr(str(file)), lines=[reason])) from error
    if not isinstance(document, dict) or not all(isinstance(document.get(name), list) for name in LISTS):
        got = f"{str(file)!r} with {_contents(document)}"
        must = f"COCO json must hold the lists {', '.join(LISTS)}"
        hint = "use an instances file; captions, results and image infos hold no boxes to learn from."
        raise DataError(message("read_coco", must, got, hint=hint))
    return document


def _contents(document: object) -> str:
    if not isinstance(document, dict):
        return f"a {type(document).__name__}"
    return ", ".join(sorted(map(str, document))[:8]) or "nothing"


def read_categories(entries: Sequence[Any], file: object, findings: Findings) -> Categories:
    """Return the categories in the order of their ids, which may have gaps.

    Raises:
        DataError: there is none, one has no whole-number id, or two of different names share one.
    """
    names: dict[int, str] = {}
    for entry in entries:
        number = as_id(entry.get("id")) if isinstance(entry, dict) else None
        if number is None:
            must = "every category must have a whole number as its id"
            raise DataError(message("read_coco", must, f"{entry!r:.80} in {str(file)!r}"))
        name = str(entry.get("name", f"category {number}"))
        if number in names and names[number] != name:
            must = "a category id must have one name"
            got = f"{number} for {names[number]!r} and {name!r} in {str(file)!r}"
            raise DataError(message("read_coco", must, got))
        if number in names:
            findings.add(Kind.REPEATED_CATEGORY, number)
        names[number] = name
    if not names:
        raise DataError(message("read_coco", "there must be at least one category", f"none in {str(file)!r}"))
    ids = tuple(sorted(names))
    return Categories(tuple(names[number] for number in ids), ids)


def _check_same_names(own: Categories, given: Categories, file: object) -> None:
    known = dict(zip(given.ids, given.names, strict=True))
    differing = [
        f"id {number}: {name!r} here, {known[number]!r} in training"
        for number, name in zip(own.ids, own.names, strict=True)
        if known.get(number, name) != name
    ]
    if differing:
        must = "category ids must mean the same in every part"
        raise DataError(message("read_coco", must, f"others in {str(file)!r}", lines=differing[:5]))


def as_id(value: object) -> int | None:
    """Return a whole number that fits into 64 bits, else None; 3.0 counts as 3."""
    number = as_finite(value)
    if number is None or not number.is_integer() or abs(number) >= 2**63:
        return None
    return int(value)  # type: ignore[call-overload, no-any-return]


def _image_entries(entries: Sequence[Any], findings: Findings) -> dict[int, dict[str, Any]]:
    kept: dict[int, dict[str, Any]] = {}
    for entry in entries:
        number = as_id(entry.get("id")) if isinstance(entry, dict) else None
        if number is None or not isinstance(entry.get("file_name"), str) or not entry["file_name"]:
            findings.add(Kind.BAD_IMAGE_ENTRY, repr(entry))
        elif number in kept:
            findings.add(Kind.REPEATED_IMAGE_ID, f"{number}: {entry['file_name']}")
        else:
            kept[number] = entry
    return kept


def choose_folder(file_names: Sequence[str], folders: Sequence[Path]) -> Path:
    """Return the folder that holds most of the first files, of equals the first."""
    probed = file_names[:PROBED_FILES]
    return max(folders, key=lambda folder: sum((folder / name).is_file() for name in probed))


def _find_image(
    entry: dict[str, Any], folder: Path, verify: bool, findings: Findings
) -> tuple[Path, tuple[int, int]] | None:
    """Return path and size of an image, None if it must be dropped."""
    name = os.path.normpath(entry["file_name"].replace("\\", "/"))
    # A file that someone sent must not make this read from elsewhere.
    if os.path.isabs(name) or name.split(os.sep)[0] == os.pardir:
        findings.add(Kind.OUTSIDE_FOLDER, entry["file_name"])
        return None
    width, height = as_id(entry.get("width")), as_id(entry.get("height"))
    said = None if width is None or height is None or min(width, height) < 1 else (width, height)
    size = usable_size(folder / name, said, verify, findings)
    return None if size is None else (folder / name, size)


def _boxes(
    entries: Sequence[Any],
    found: dict[int, tuple[Path, tuple[int, int]] | None],
    categories: Categories,
    findings: Findings,
) -> dict[int, list[Box]]:
    """Return the boxes of every image that has some."""
    reader = _BoxReader(categories, findings)
    boxes: dict[int, list[Box]] = {}
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            findings.add(Kind.BAD_ANNOTATION, f"annotations[{index}]")
            continue
        image_id = as_id(entry.get("image_id"))
        where = f"id {entry.get('id', '?')!s:.20} of image {entry.get('image_id', '?')!s:.20}"
        place = None if image_id is None else found.get(image_id)
        if image_id is None or place is None:
            findings.add(Kind.IMAGE_DROPPED if image_id in found else Kind.NO_IMAGE, where)
            continue
        box = reader.read(entry, image_id, place[1], where)
        if box is not None:
            boxes.setdefault(image_id, []).append(box)
    return boxes


class _BoxReader:
    """Makes boxes of annotations, and remembers the first of each id."""

    def __init__(self, categories: Categories, findings: Findings) -> None:
        self.labels = {number: label for label, number in enumerate(categories.ids)}
        self.findings = findings
        self.first: dict[int, tuple[int, Box]] = {}

    def read(self, entry: dict[str, Any], image_id: int, size: tuple[int, int], where: str) -> Box | None:
        """Return the box of an annotation, None if it must be dropped."""
        category = as_id(entry.get("category_id"))
        if category is None or category not in self.labels:
            self.findings.add(Kind.UNKNOWN_CATEGORY, f"{entry.get('category_id')!r:.30}, {where}")
            return None
        inside = clean_corners(_corners(entry.get("bbox")), size, where, self.findings)
        if inside is None:
            return None
        area = as_finite(entry.get("area"))
        if area is None or area <= 0:
            area = (inside[2] - inside[0]) * (inside[3] - inside[1])
        box = Box(inside, self.labels[category], area, entry.get("iscrowd") == 1)
        return None if self._is_repeated(as_id(entry.get("id")), (image_id, box), where) else box

    def _is_repeated(self, number: int | None, content: tuple[int, Box], where: str) -> bool:
        """Say whether the same stood under this id before, and note where something else did."""
        before = None if number is None else self.first.setdefault(number, content)
        if before is None or before is content:
            return False
        repeated = before == content
        self.findings.add(Kind.REPEATED_ANNOTATION if repeated else Kind.REPEATED_ANNOTATION_ID, where)
        return repeated


def _corners(sides: object) -> Sequence[object]:
    """Return the corners of x, y, width, height; nothing where these are not four finite numbers."""
    numbers = [as_finite(value) for value in sides] if isinstance(sides, list) else []
    finite = [number for number in numbers if number is not None]
    if len(numbers) != 4 or len(finite) != 4:
        return ()
    x, y, width, height = finite
    return x, y, x + width, y + height
