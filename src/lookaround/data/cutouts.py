"""Real objects cut out of classification images, for scenes: disjoint for training, validation and test."""

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from lookaround.data import digits, fashion_mnist
from lookaround.data.in_memory import LabelledImages
from lookaround.data.source import Settings, Source, Splits
from lookaround.errors import UnknownNameError, closest, message

PARTS = ("train", "val", "test")
OPAQUE = 0.5  # a pixel is an object's from this opacity on


@dataclass(frozen=True)
class Look:
    """How objects of a source are told from what surrounds them, and drawn.

    Args:
        edge: brightness, 0 … 1, at which an object ends.
        shading: how much of its brightness an object keeps; 0 is ink of one colour.
    """

    edge: float
    shading: float


@dataclass(frozen=True, eq=False)
class Pool:
    """The objects that one part of the scenes may use."""

    pixels: UInt8[np.ndarray, "number height width"]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    look: Look


_SOURCES: dict[str, tuple[Source, Look]] = {
    "digits": (digits.SOURCE, Look(edge=0.38, shading=0.15)),
    "fashion-mnist": (fashion_mnist.SOURCE, Look(edge=0.10, shading=0.75)),
}
SOURCES = tuple(_SOURCES)


def load_pools(source: str, root: str | None = None, download: bool = True) -> dict[str, Pool]:
    """Return the objects of `train`, `val` and `test`, which share none.

    They are the parts that a classification run with seed 0 has: a network trained there to tell these
    classes apart has seen no object of the test scenes. Where the very same pixels occur in two parts, the
    object is left out of `train` before `val`, and of `val` before `test`.

    Args:
        source: "digits" or "fashion-mnist".
        root: where Fashion-MNIST is kept.
        download: whether it may be downloaded.

    Raises:
        UnknownNameError: `source` is not known.
        DataError: the images are not to be had.
    """
    if source not in _SOURCES:
        must = "source must be a known source of objects"
        raise UnknownNameError(message("scenes", must, repr(source), hint=closest(str(source), SOURCES)))
    origin, look = _SOURCES[source]
    settings = Settings(root=root, download=download)
    origin.prepare(settings)
    return _without_repeats(origin.load(settings), look)


def _without_repeats(splits: Splits, look: Look) -> dict[str, Pool]:
    seen: set[str] = set()
    pools: dict[str, Pool] = {}
    for part, images in (("test", splits.test), ("val", splits.validation), ("train", splits.train)):
        assert isinstance(images, LabelledImages)  # both sources are held in memory, and have a test part
        pixels = images.images[:, 0].numpy()
        names = [fingerprint(picture) for picture in pixels]
        kept = [index for index, name in enumerate(names) if name not in seen]
        seen |= set(names)
        labels = tuple(int(images.targets[index]) for index in kept)
        pools[part] = Pool(pixels[kept], labels, tuple(splits.class_names), look)
    return {part: pools[part] for part in PARTS}


def fingerprint(pixels: UInt8[np.ndarray, "height width"]) -> str:
    """Return a name for these very pixels."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=8).hexdigest()


@dataclass(frozen=True, eq=False)
class CutOut:
    """An object scaled to its size: how opaque and how bright it is at each pixel, both 0 … 1."""

    opacity: Float32[np.ndarray, "height width"]
    brightness: Float32[np.ndarray, "height width"]


def cut_out(
    pixels: UInt8[np.ndarray, "rows columns"], look: Look, longer_side: int, angle: float
) -> CutOut | None:
    """Scale an object smoothly to a longer side of `longer_side` pixels, and turn it by some degrees.

    Returns:
        The object, cut to its extent; None where nothing of it is bright enough.
    """
    values = pixels.astype(np.float32) / max(1, int(pixels.max()))
    found = extent(values >= look.edge)
    if found is None:
        return None
    side = max(part.stop - part.start for part in found)
    margin = 2  # pixels around it, over which its brightness falls
    padded = np.pad(values, margin)[tuple(slice(part.start, part.stop + 2 * margin) for part in found)]
    scale = longer_side / side
    height, width = (max(1, round(length * scale)) for length in padded.shape)
    large = Image.fromarray(padded).resize((width, height), Image.Resampling.BICUBIC)
    turned = np.asarray(large.rotate(angle, Image.Resampling.BICUBIC, expand=True), dtype=np.float32)
    # An edge of about a pixel whatever the scale, and nothing at all where the image is black.
    opacity = np.clip((turned - look.edge) * max(OPAQUE / look.edge, 1.5 * scale) + OPAQUE, 0, 1)
    inside = extent(opacity >= OPAQUE)
    return None if inside is None else CutOut(opacity[inside], np.clip(turned[inside], 0, 1))


def extent(mask: Bool[np.ndarray, "height width"]) -> tuple[slice, slice] | None:
    """Return the rows and columns from the first to the last pixel that is True, None if there is none.

    Example:
        >>> extent(np.array([[False, False, False], [False, True, True]]))
        (slice(1, 2, None), slice(1, 3, None))
    """
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
