"""Random changes to training images, repeatable so that a resumed run sees them again."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Int64, Shaped, UInt8
from torch import Tensor

from lookaround.errors import UnknownNameError, closest, message

AUGMENTATIONS = ("none", "shift", "shift_flip", "paper")
"""none: unchanged. shift: moved by up to an eighth. shift_flip: also mirrored. paper: random crops,
mirrored."""


def check_augment(where: str, name: str) -> None:
    """Raise UnknownNameError unless `name` is one of AUGMENTATIONS."""
    if name not in AUGMENTATIONS:
        must = "augment must be a known augmentation"
        raise UnknownNameError(message(where, must, repr(name), hint=closest(str(name), AUGMENTATIONS)))


def largest_shift(image_size: int) -> int:
    """Pixels by which "shift" moves an image at most: an eighth of its side, at least one."""
    return max(1, image_size // 8)


def draw_moves(number: int, image_size: int, flip: bool, generator: torch.Generator | None = None) -> Tensor:
    """Draw rows and columns in 0 … 2 * largest_shift, and whether to mirror. Shape: number 3."""
    steps = 2 * largest_shift(image_size) + 1
    shifts = torch.randint(steps, (number, 2), generator=generator)
    mirrors = torch.randint(2 if flip else 1, (number, 1), generator=generator)
    return torch.cat([shifts, mirrors], dim=1)


def apply_moves(
    images: UInt8[Tensor, "batch channels height width"], moves: Int64[Tensor, "batch 3"]
) -> UInt8[Tensor, "batch channels height width"]:
    """Move every image by its own number of pixels and mirror some; what comes in from outside is 0.

    Cost: one gather for the whole batch, no loop over images.
    """
    batch, _, height, width = images.shape
    margin = largest_shift(min(height, width))
    padded = torch.nn.functional.pad(images, (margin, margin, margin, margin))
    columns = torch.arange(width).expand(batch, width)
    columns = torch.where(moves[:, 2:] == 1, columns.flip(1), columns) + moves[:, 1:2]
    rows = torch.arange(height) + moves[:, :1]
    return _gather(padded, rows, columns)


def _gather(
    images: Shaped[Tensor, "batch channels in_height in_width"],
    rows: Int64[Tensor, "batch height"],
    columns: Int64[Tensor, "batch width"],
) -> Shaped[Tensor, "batch channels height width"]:
    batch, channels, _, in_width = images.shape
    places = rows[:, :, None] * in_width + columns[:, None, :]  # batch height width
    flat = places.flatten(1)[:, None].expand(batch, channels, -1)
    return images.flatten(2).gather(2, flat).view(batch, channels, *places.shape[1:])


def derived_seed(*numbers: int) -> int:
    """Mix whole numbers into one seed; (seed 0, epoch 1) and (seed 1, epoch 0) give unrelated ones."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Let torch's global CPU generator follow from `numbers` inside the block; after it, go on as before."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(derived_seed(*numbers))
    try:
        yield
    finally:
        torch.set_rng_state(before)
