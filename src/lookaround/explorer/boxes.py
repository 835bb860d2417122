"""Boxes drawn on pictures."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

LEAST_SIDE = 480  # pixels; smaller pictures are enlarged, or what is written at the boxes would cover them
GAP = 8  # pixels between pictures of a sheet
MOST_ENLARGED = 8
GOLDEN = 0.61803  # of a turn around the colours: neighbouring labels get colours far apart


@dataclass(frozen=True)
class DrawnBox:
    """A box to draw.

    Attributes:
        corners: x1 y1 x2 y2 in pixels of the picture.
        text: what to write at it.
        label: boxes of one label have one colour.
    """

    corners: tuple[float, float, float, float]
    text: str
    label: int


def draw_boxes(picture: Image.Image, boxes: Sequence[DrawnBox], least_side: int = LEAST_SIDE) -> Image.Image:
    """Return a copy of a picture with boxes, small pictures enlarged by a whole number.

    Args:
        picture: of any mode.
        boxes: the first one is drawn last, above the others.
        least_side: pixels of the longer side; pictures below it are enlarged.

    Example:
        >>> drawn = draw_boxes(Image.new("L", (128, 96)), [DrawnBox((8.0, 8.0, 40.0, 60.0), "three 0.98", 3)])
        >>> drawn.mode, drawn.size
        ('RGB', (512, 384))
    """
    factor = min(MOST_ENLARGED, max(1, -(-least_side // max(picture.size))))
    size = (picture.width * factor, picture.height * factor)
    drawn = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(drawn)
    side = max(drawn.size)
    font = ImageFont.load_default(size=max(12, side // 36))
    for box in reversed(boxes):
        corners = [corner * factor for corner in box.corners]
        outline = (*corners[:2], *(max(corners[i], corners[i + 2] - 1) for i in (0, 1)))
        pen.rectangle(outline, outline=label_colour(box.label), width=max(2, side // 240))
        _write_text(pen, box, (corners[0], corners[1]), font, drawn.width)
    return drawn


def tile_pictures(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Put pictures of one size onto a white sheet, row by row.

    Example:
        >>> tile_pictures([Image.new("RGB", (40, 30))] * 5, columns=3).size
        (136, 68)
    """
    columns = min(columns, len(pictures))
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    size = (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP)
    sheet = Image.new("RGB", size, "white")
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        sheet.paste(picture, (column * (width + GAP), row * (height + GAP)))
    return sheet


def round_colours(picture: Image.Image, step: int = 8) -> Image.Image:
    """Round each colour to a multiple of `step`: a PNG needs half the bytes, and the eye sees no difference.

    Example:
        >>> round_colours(Image.new("RGB", (1, 1), (3, 100, 255))).getpixel((0, 0))
        (0, 104, 255)
    """
    return picture.point(lambda value: min(255, (value + step // 2) // step * step))


def _write_text(
    pen: ImageDraw.ImageDraw,
    box: DrawnBox,
    corner: tuple[float, float],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    picture_width: int,
) -> None:
    """Write the text of a box on a ground of its colour, above the box where there is room."""
    x1, y1 = corner
    left, top, right, bottom = pen.textbbox((0, 0), box.text, font=font)
    height, length = bottom - top + 4, right - left + 6
    above = y1 - height if y1 >= height else y1  # inside where there is no room above
    start = max(0.0, min(x1, picture_width - length))
    pen.rectangle((start, above, start + length, above + height), fill=label_colour(box.label))
    pen.text((start + 3 - left, above + 2 - top), box.text, fill="black", font=font)


def label_colour(label: int) -> tuple[int, int, int]:
    """Return a bright colour for a label.

    Example:
        >>> label_colour(0)
        (255, 89, 89)
    """
    red, green, blue = colorsys.hsv_to_rgb((label * GOLDEN) % 1.0, 0.65, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)
