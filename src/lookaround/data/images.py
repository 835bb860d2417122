"""Image files: finding them, checking them, decoding them with PIL into upright grey or RGB pictures."""

import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from lookaround.errors import ArgumentError, DataError, message

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
WIDE_GREY_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
# EXIF: how a camera was held, and the values that swap width and height.
ORIENTATION, TURNED = 0x0112, frozenset({5, 6, 7, 8})
# What PIL's readers raise on files that are broken in one way or another; found by feeding them broken files.
BROKEN_FILE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    AttributeError,
    EOFError,
    OverflowError,
    NotImplementedError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def find_images(folder: Path) -> Iterator[Path]:
    """Yield every file below `folder` with the suffix of an image, sorted; hidden names are passed over."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(parent, name)


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Decode a file into an upright picture of mode "L" (grey) or "RGB".

    The rotation noted by a camera (EXIF) is applied, transparent pixels are laid over white, 16-bit grey is
    scaled to 8 bit, and palettes, CMYK and the like become RGB. Of an animation the first picture counts.

    Raises:
        DataError: the file is missing, no image, truncated, or larger than PIL thinks safe to decode.
    """
    try:
        with _quiet(), Image.open(path) as image:
            image.load()
            return flatten(ImageOps.exif_transpose(image))
    except BROKEN_FILE as error:
        raise _unreadable("open_image", path, error) from error


def check_image(path: str | os.PathLike[str]) -> None:
    """Raise DataError where a look at the file shows that it is no image, or a truncated one.

    Cost: the header alone for JPEG and WebP, for PNG its checksums. A JPEG without an end mark near its end
    is decoded to be sure, because some cameras append data of their own, and so are files of other formats,
    which show by nothing else that they are whole.
    """
    try:
        with _quiet(), Image.open(path) as image:
            jpeg = image.format in ("JPEG", "MPO")
            in_doubt = not _has_jpeg_end(path) if jpeg else image.format not in ("PNG", "WEBP")
            image.verify()
    except BROKEN_FILE as error:
        raise _unreadable("check_image", path, error) from error
    if in_doubt:
        open_image(path)


def is_grey(path: str | os.PathLike[str]) -> bool:
    """Say from the header alone whether a file holds a grey picture."""
    try:
        with _quiet(), Image.open(path) as image:
            return image.mode in {"1", "L", "LA", "La"} or image.mode in WIDE_GREY_MODES
    except BROKEN_FILE as error:
        raise _unreadable("is_grey", path, error) from error


def upright_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return the width and height that `open_image` will give, from the header alone."""
    try:
        with _quiet(), Image.open(path) as image:
            turned = image.getexif().get(ORIENTATION) in TURNED
            return (image.height, image.width) if turned else image.size
    except BROKEN_FILE as error:
        raise _unreadable("upright_size", path, error) from error


def flatten(image: Image.Image) -> Image.Image:
    """Return the picture in mode "L" where it is grey and opaque, in "RGB" otherwise."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode in WIDE_GREY_MODES:
        return _eight_bit(image)
    if image.mode == "1":
        return image.convert("L")
    if image.mode == "F":
        hint = "save it as 8-bit or 16-bit PNG."
        raise DataError(message("flatten", "an image must have 8 or 16 bits a channel", "floats", hint=hint))
    if "transparency" in image.info or image.mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def to_pixels(image: Image.Image, in_channels: int) -> Tensor:
    """Return a picture of any mode as uint8, channels height width, with 1 (grey) or 3 (RGB) channels."""
    if in_channels not in (1, 3):
        raise ArgumentError(message("to_pixels", "in_channels must be 1 (grey) or 3 (RGB)", in_channels))
    array = np.array(flatten(image).convert("L" if in_channels == 1 else "RGB"))
    pixels = torch.from_numpy(array)
    return pixels[None] if in_channels == 1 else pixels.permute(2, 0, 1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep PIL's remarks on odd metadata from the user: the picture either can be decoded or cannot."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _eight_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.size and (values.min() < 0 or values.max() > 65535):
        got = f"values from {values.min()} to {values.max()}"
        hint = "save it as 8-bit or 16-bit PNG."
        raise DataError(
            message("flatten", "a wide grey image must have values of 0 to 65535", got, hint=hint)
        )
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _has_jpeg_end(path: str | os.PathLike[str]) -> bool:
    with open(path, "rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 1024))
        return b"\xff\xd9" in file.read()


def _unreadable(where: str, path: str | os.PathLike[str], error: BaseException) -> DataError:
    name = os.fspath(path)
    if isinstance(error, FileNotFoundError):
        return DataError(message(where, "the image file must exist", repr(name)))
    if isinstance(error, Image.DecompressionBombError):
        hint = "scale the image down first."
        return DataError(
            message(where, "an image must be of a size that is safe to decode", repr(name), hint=hint)
        )
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    hint = "replace or remove the file."
    must = "the file must be an image that can be decoded"
    return DataError(message(where, must, repr(name), lines=[f"reason: {reason}"], hint=hint))
