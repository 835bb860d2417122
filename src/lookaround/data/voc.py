"""Reading Pascal VOC xml: one file of boxes for each image.

The corners in these files are pixels counted from 1, both included; here a box x1 y1 x2 y2 counts from 0 and
ends behind its last pixel, so that 1 is subtracted from xmin and ymin. A `difficult` object becomes a crowd
box.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

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
from lookaround.data.images import find_images
from lookaround.errors import DataError, message

MOST_BYTES = 16 * 2**20  # of one description; a picture with ten thousand boxes has three


@dataclass(frozen=True)
class Description:
    """One xml file, parsed but not yet checked: boxes are class name, corners, difficult."""

    file: Path
    image_name: str | None
    size: tuple[int, int] | None
    objects: tuple[tuple[str, tuple[object, ...], bool], ...]


def read_voc(
    files: Sequence[Path],
    image_folder: str | Path,
    categories: Categories | None = None,
    verify: bool = True,
) -> Annotations:
    """Read VOC xml files and look for their images.

    What is wrong with single files and boxes is counted in the summary of the result and dealt with as
    `findings.Kind` says; it raises nothing.

    Args:
        files: the xml files; images are numbered from 1 in their order.
        image_folder: where the images lie.
        categories: those of the training part, where this is another part: boxes of others are dropped.
            None: the classes that occur, in the order of the alphabet.
        verify: whether to look into every image file.

    Raises:
        DataError: no file can be used, or no object has a class.
    """
    findings = Findings()
    described = [parsed for file in files if (parsed := _read(file, findings)) is not None]
    folder = Path(image_folder)
    chosen = _categories(described, folder) if categories is None else categories
    # One listing of the folder, not one search for each suffix and image.
    by_stem = {path.stem: path for path in find_images(folder)}
    images = []
    for number, description in enumerate(described, start=1):
        path = by_stem.get(description.file.stem, folder / Path(description.image_name or "?").name)
        size = usable_size(path, description.size, verify, findings)
        if size is None:
            for name, _, _ in description.objects:
                findings.add(Kind.IMAGE_DROPPED, f"{name} in {description.file.name}")
            continue
        boxes = _boxes(description, size, chosen, findings)
        images.append(AnnotatedImage.of(number, path, size, boxes))
    source = files[0].parent if files else folder
    return Annotations.of(source, images, chosen, findings)


def parse_xml(content: bytes) -> Element:
    """Return the root element of an xml document, without following anything that it declares.

    Raises:
        DataError: it is no xml, or has a document type declaration, the place of entities that expand to
            gigabytes or name files elsewhere.
    """
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = _refuse_declaration
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(content, True)
    # LookupError and ValueError: encodings that are not known, or that expat cannot take.
    except (expat.ExpatError, LookupError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        must = "the description must be well-formed xml"
        raise DataError(message("parse_xml", must, f"{error!s:.200}")) from error
    return builder.close()


def _refuse_declaration(name: str, *_: object) -> None:
    must = "the description must be without a document type declaration"
    raise DataError(message("parse_xml", must, f"<!DOCTYPE {name:.40}>"))


def _read(file: Path, findings: Findings) -> Description | None:
    try:
        root = parse_xml(_content(file))
    except (OSError, DataError) as error:
        findings.add(Kind.BAD_DESCRIPTION, f"{file.name}: {str(error).splitlines()[0]}")
        return None
    if root.tag != "annotation":
        findings.add(Kind.BAD_DESCRIPTION, f"{file.name}: its root is {root.tag!r:.40}, not 'annotation'")
        return None
    width, height = (_number(root.findtext(f"size/{side}")) for side in ("width", "height"))
    size = None
    if width is not None and height is not None and min(width, height) >= 1:
        size = (int(width), int(height))
    objects = tuple(_object(element) for element in root.findall("object"))
    return Description(file, root.findtext("filename"), size, objects)


def _content(file: Path) -> bytes:
    size = file.stat().st_size
    if size > MOST_BYTES:
        raise DataError(message("read_voc", f"a description must have at most {MOST_BYTES} bytes", size))
    return file.read_bytes()


def _object(element: Element) -> tuple[str, tuple[object, ...], bool]:
    name = (element.findtext("name") or "").strip()
    xmin, ymin, xmax, ymax = (
        _number(element.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")
    )
    corners = (None if xmin is None else xmin - 1, None if ymin is None else ymin - 1, xmax, ymax)
    return name, corners, _number(element.findtext("difficult")) == 1


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else as_finite(float(text))
    except ValueError:
        return None


def _categories(described: Sequence[Description], folder: Path) -> Categories:
    names = sorted({name for description in described for name, _, _ in description.objects if name})
    if not names:
        must = "there must be at least one object with a class"
        hint = "check that the folder holds VOC xml files."
        got = f"none in {len(described)} descriptions for {str(folder)!r}"
        raise DataError(message("read_voc", must, got, hint=hint))
    return Categories(tuple(names), tuple(range(1, len(names) + 1)))


def _boxes(
    description: Description, size: tuple[int, int], categories: Categories, findings: Findings
) -> list[Box]:
    boxes = []
    for name, corners, difficult in description.objects:
        where = f"{name or 'no name'} in {description.file.name}"
        if name not in categories.names:
            findings.add(Kind.UNKNOWN_CATEGORY, where)
            continue
        inside = clean_corners(corners, size, where, findings)
        if inside is not None:
            area = (inside[2] - inside[0]) * (inside[3] - inside[1])
            boxes.append(Box(inside, categories.names.index(name), area, difficult))
    return boxes
