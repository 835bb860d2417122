"""Textured backgrounds for scenes: soft patches of colour, stripes or grain over them."""

import math

import numpy as np
from jaxtyping import Float32
from PIL import Image

Canvas = Float32[np.ndarray, "side side 3"]


def draw_background(side: int, random: np.random.Generator) -> Canvas:
    """Return a background of values 0 … 1 that is another for every state of the generator."""
    colour = random.uniform(0.2, 0.8, 3)
    patches = smooth_noise(side, int(random.integers(3, 7)), 3, random) * random.uniform(0.05, 0.16)
    texture = stripes(side, random) if random.random() < 0.5 else grain(side, random)
    canvas = colour + patches + texture[..., None] * random.uniform(0.02, 0.07)
    return np.asarray(np.clip(canvas, 0, 1), dtype=np.float32)


def smooth_noise(
    side: int, cells: int, channels: int, random: np.random.Generator
) -> Float32[np.ndarray, "side side channels"]:
    """Return noise of unit deviation at `cells` x `cells` points, and smooth between them."""
    points = random.standard_normal((channels, cells, cells)).astype(np.float32)
    planes = [
        np.asarray(Image.fromarray(plane).resize((side, side), Image.Resampling.BICUBIC)) for plane in points
    ]
    return np.stack(planes, axis=-1)


def stripes(side: int, random: np.random.Generator) -> Float32[np.ndarray, "side side"]:
    """Return waves of a random direction and of 6 to 24 pixels' length, bent a little."""
    angle, length = random.uniform(0, math.pi), random.uniform(6, 24)
    rows, columns = np.mgrid[:side, :side]
    distance = rows * math.sin(angle) + columns * math.cos(angle)
    bend = smooth_noise(side, 4, 1, random)[..., 0] * length / 4
    return np.asarray(np.sin((distance + bend) * (2 * math.pi / length)), dtype=np.float32)


def grain(side: int, random: np.random.Generator) -> Float32[np.ndarray, "side side"]:
    """Return blots of 2 to 8 pixels."""
    cells = max(2, round(side / random.uniform(2, 8)))
    return np.asarray(smooth_noise(side, cells, 1, random)[..., 0])
