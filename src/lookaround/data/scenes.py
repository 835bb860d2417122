"""Scenes composed of real cut-outs: objects of several sizes that overlap a little, clutter, texture."""

import math
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from lookaround.data.cutouts import OPAQUE, CutOut, Pool, cut_out, extent, fingerprint
from lookaround.data.scene_backgrounds import Canvas, draw_background
from lookaround.errors import ArgumentError, message

LARGEST_OVERLAP = 0.3  # intersection over union of any two boxes
LEAST_VISIBLE = 0.7  # of the pixels of every object
LARGEST_TURN = 15.0  # degrees
TRIES = 24  # places to look at for one object before the scene does without it
LEAST_CONTRAST = 0.45  # of object and surroundings: distance of their colours, each 0 … 1
SENSOR_NOISE = 0.012


@dataclass(frozen=True)
class SceneSettings:
    """What scenes look like.

    Args:
        image_size: side of the square picture, in pixels.
        smallest: longer side of the smallest objects, in pixels.
        largest: of the largest ones.
        most_objects: a scene has from 1 up to as many.
        clutter: a scene has from 0 up to as many fragments that are no objects.

    Raises:
        ArgumentError: the numbers do not fit together.
    """

    image_size: int = 128
    smallest: int = 16
    largest: int = 64
    most_objects: int = 6
    clutter: int = 6

    def __post_init__(self) -> None:
        if not 8 <= self.smallest <= self.largest <= self.image_size <= 4096:
            must = "sizes must hold 8 <= smallest object <= largest object <= image size <= 4096"
            got = f"{self.smallest}, {self.largest}, {self.image_size}"
            hint = "try --object-sizes 16 64 --image-size 128."
            raise ArgumentError(message("scenes", must, got, hint=hint))
        if self.most_objects < 1 or self.clutter < 0:
            must = "there must be at least 1 object, and 0 fragments"
            raise ArgumentError(message("scenes", must, f"{self.most_objects} and {self.clutter}"))


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture, and whose each of its pixels is.

    Args:
        pixels: RGB.
        owners: 1 for pixels of the first object, and so on; 0 for the background and clutter.
        labels: of the objects.
        cut_outs: the fingerprints of the images that the objects were cut from.
        fragments: likewise of the clutter.
    """

    pixels: UInt8[np.ndarray, "height width 3"]
    owners: Int64[np.ndarray, "height width"]
    labels: tuple[int, ...]
    cut_outs: tuple[str, ...]
    fragments: tuple[str, ...]

    def box(self, index: int) -> tuple[int, int, int, int]:
        """Return x1 y1 x2 y2 around the pixels of an object that can be seen."""
        found = extent(self.owners == index + 1)
        assert found is not None  # LEAST_VISIBLE
        rows, columns = found
        return columns.start, rows.start, columns.stop, rows.stop

    def area(self, index: int) -> int:
        """Return the number of pixels of an object that can be seen."""
        return int((self.owners == index + 1).sum())


@dataclass
class _Composition:
    """A scene while it is made."""

    canvas: Canvas
    owners: Int64[np.ndarray, "side side"]
    labels: list[int] = field(default_factory=list)
    cut_outs: list[str] = field(default_factory=list)
    fragments: list[str] = field(default_factory=list)
    masks: list[Bool[np.ndarray, "side side"]] = field(default_factory=list)  # of whole objects


def compose_scene(pool: Pool, settings: SceneSettings, seed: int, *numbers: int) -> Scene:
    """Compose a scene that is a function of its arguments.

    Args:
        pool: the objects to take from.
        settings: sizes and numbers.
        seed: with `numbers` (of the part, of the scene) decides every random choice.
        numbers: whole numbers from 0.

    Cost: about 10 ms for the default size.
    """
    random = np.random.default_rng([seed, *numbers])
    side = settings.image_size
    scene = _Composition(draw_background(side, random), np.zeros((side, side), dtype=np.int64))
    for _ in range(int(random.integers(0, settings.clutter + 1))):
        _add_fragment(scene, pool, settings, random)
    for _ in range(int(random.integers(1, settings.most_objects + 1))):
        _add_object(scene, pool, settings, random)
    noise = random.standard_normal(scene.canvas.shape, dtype=np.float32) * SENSOR_NOISE
    pixels = np.round(np.clip(scene.canvas + noise, 0, 1) * 255).astype(np.uint8)
    return Scene(pixels, scene.owners, tuple(scene.labels), tuple(scene.cut_outs), tuple(scene.fragments))


def _draw_cut_out(
    pool: Pool, settings: SceneSettings, random: np.random.Generator
) -> tuple[int, CutOut] | None:
    """Return the index of an object and the object, scaled and turned; None if it does not fit in."""
    index = int(random.integers(len(pool.labels)))
    size = math.exp(random.uniform(math.log(settings.smallest), math.log(settings.largest)))
    angle = random.uniform(-LARGEST_TURN, LARGEST_TURN)
    cut = cut_out(pool.pixels[index], pool.look, round(size), angle)
    fits = cut is not None and max(cut.opacity.shape) <= settings.image_size
    return (index, cut) if cut is not None and fits else None


def _draw_place(shape: tuple[int, ...], side: int, random: np.random.Generator) -> tuple[slice, slice]:
    top, left = (int(random.integers(side - length + 1)) for length in shape)
    return slice(top, top + shape[0]), slice(left, left + shape[1])


def _add_object(
    scene: _Composition, pool: Pool, settings: SceneSettings, random: np.random.Generator
) -> None:
    """Put one object where it hides little of the others; none if no such place was found."""
    for _ in range(TRIES):
        drawn = _draw_cut_out(pool, settings, random)
        if drawn is None:
            continue
        index, cut = drawn
        place = _draw_place(cut.opacity.shape, settings.image_size, random)
        mask = np.zeros_like(scene.owners, dtype=np.bool_)
        mask[place] = cut.opacity >= OPAQUE
        if _hides_little(mask, scene):
            _paint(scene.canvas, cut, place, pool.look.shading, random)
            scene.masks.append(mask)
            scene.owners[mask] = len(scene.masks)
            scene.labels.append(pool.labels[index])
            scene.cut_outs.append(fingerprint(pool.pixels[index]))
            return


def _add_fragment(
    scene: _Composition, pool: Pool, settings: SceneSettings, random: np.random.Generator
) -> None:
    """Put a part of an object somewhere, too small a part to be one."""
    drawn = _draw_cut_out(pool, settings, random)
    if drawn is None:
        return
    index, cut = drawn
    shape = [max(3, round(length * random.uniform(0.25, 0.45))) for length in cut.opacity.shape]
    rows, columns = (
        slice(start, start + part)
        for length, part in zip(cut.opacity.shape, shape, strict=True)
        for start in [int(random.integers(max(1, length - part + 1)))]
    )
    piece = CutOut(cut.opacity[rows, columns], cut.brightness[rows, columns])
    place = _draw_place(piece.opacity.shape, settings.image_size, random)
    _paint(scene.canvas, piece, place, pool.look.shading, random)
    scene.fragments.append(fingerprint(pool.pixels[index]))


def _hides_little(mask: Bool[np.ndarray, "side side"], scene: _Composition) -> bool:
    """Say whether an object may be put there: boxes overlap little, everything else stays visible."""
    for number, other in enumerate(scene.masks, start=1):
        if box_overlap(mask, other) > LARGEST_OVERLAP:
            return False
        left = np.count_nonzero((scene.owners == number) & ~mask)
        if left < LEAST_VISIBLE * np.count_nonzero(other):
            return False
    return True


def box_overlap(first: Bool[np.ndarray, "height width"], second: Bool[np.ndarray, "height width"]) -> float:
    """Return the intersection over union of the boxes around two masks."""
    boxes = [extent(mask) for mask in (first, second)]
    assert boxes[0] is not None
    assert boxes[1] is not None
    shared, areas = 1, [1, 1]
    for a, b in zip(*boxes, strict=True):  # rows, then columns
        shared *= max(0, min(a.stop, b.stop) - max(a.start, b.start))
        areas = [areas[0] * (a.stop - a.start), areas[1] * (b.stop - b.start)]
    return shared / (sum(areas) - shared)


def _paint(
    canvas: Canvas, cut: CutOut, place: tuple[slice, slice], shading: float, random: np.random.Generator
) -> None:
    """Blend an object into the canvas in a colour that stands out there."""
    below = canvas[place]
    opacity = cut.opacity[..., None]
    colour = _draw_colour((below * opacity).sum((0, 1)) / max(1e-6, float(opacity.sum())), random)
    shade = (1 - shading + shading * cut.brightness)[..., None]
    canvas[place] = below + opacity * (colour * shade - below)


def _draw_colour(
    surroundings: Float32[np.ndarray, "3"], random: np.random.Generator
) -> Float32[np.ndarray, "3"]:
    """Return a random colour far enough from another, or the farthest of some."""
    colours = random.uniform(0, 1, (16, 3)).astype(np.float32)
    distances = np.linalg.norm(colours - surroundings, axis=1)
    enough = np.flatnonzero(distances >= LEAST_CONTRAST)
    chosen = int(enough[0]) if len(enough) else int(distances.argmax())
    return np.asarray(colours[chosen])
