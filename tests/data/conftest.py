"""Small image files and trees."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Tree = Callable[..., Path]


def picture(seed: int, size: tuple[int, int] = (12, 10), mode: str = "RGB") -> Image.Image:
    """Noise of its own for every seed; size is (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture
def make_picture() -> Callable[..., Image.Image]:
    return picture


@pytest.fixture
def make_tree(tmp_path: Path) -> Tree:
    """Write `count` images a class below each of `parts` ("" is the root) and return the root."""

    def make(
        parts: tuple[str, ...] = ("",), classes: tuple[str, ...] = ("ant", "bee"), count: int = 10, mode="RGB"
    ) -> Path:
        root = tmp_path / "tree"
        for part in parts:
            for label, name in enumerate(classes):
                folder = root / part / name
                folder.mkdir(parents=True)
                for index in range(count):
                    picture(1000 * label + index + 17 * len(part), mode=mode).save(folder / f"{index:02}.png")
        return root

    return make
