"""Which tiles the GPU kernels work with, by window, vector length and dtype.

The entries are reasoned from the instructions, registers, spills and shared memory that the compiler reports
for sm_80 and sm_90 (`docs/gpu.md`). None has been timed on a GPU yet.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["forward", "query", "key"]

SHARED_MEMORY_BYTES = 99 * 1024  # what one program may have on every NVIDIA GPU since sm_80
BLOCK_Y, BLOCK_X = 2, 8  # a strip: the 16 rows of one product on the tensor cores
WARPS = 4  # one for each strip, or several where shared memory holds fewer strips


@dataclass(frozen=True)
class Tiles:
    """The tile of one program: strips of block_y x block_x pixels, which meet their windows line by line.

    `registers` is the most that a thread may have, None for as many as there are.
    """

    strips: int
    block_y: int
    block_x: int
    lines: int
    warps: int
    registers: int | None = None

    @property
    def height(self) -> int:
        """Height of the tile in pixels."""
        return self.strips * self.block_y

    @property
    def width(self) -> int:
        """Width of the tile in pixels."""
        return self.block_x


# (kernel, longest vector): (pixels that a strip meets at once, registers), for 16-bit types. With 128
# registers sixteen warps fit on a processor, with 168 twelve, with 255 eight.
TABLE: dict[tuple[Kind, int], tuple[int, int | None]] = {
    ("forward", 16): (64, 128),
    ("forward", 32): (64, 168),
    ("forward", 64): (32, 168),
    ("forward", 128): (16, None),
    ("query", 16): (64, 168),
    ("query", 32): (32, None),
    ("query", 64): (16, None),
    ("query", 128): (16, None),
    ("key", 16): (32, 168),
    ("key", 32): (32, None),
    ("key", 64): (16, None),
    ("key", 128): (16, None),
}


def choose_tiles(kind: Kind, kernel_size: tuple[int, int], vector: int, itemsize: int) -> Tiles:
    """Choose the tile of a kernel: strips of 2x8 pixels, each with a warp and a window of its own.

    A taller strip would meet more lines that only some of its pixels see, a wider one more columns.

    Args:
        kind: which kernel.
        kernel_size: height and width of the window.
        vector: the larger of head_dim and value_dim, at most 128.
        itemsize: bytes of a number. The products of float32 need twice the registers.
    """
    bucket = next(bucket for bucket in (16, 32, 64, 128) if vector <= bucket)
    most, registers = TABLE[kind, bucket] if itemsize == 2 else (16, None)
    across = next_power_of_two(BLOCK_X + kernel_size[1] - 1)
    lines = max(1, min(most // across, next_power_of_two(kernel_size[0] + BLOCK_Y - 1)), 16 // across)
    strips = 4
    while strips > 1 and 4 * strips * lines * across * vector * itemsize > SHARED_MEMORY_BYTES:
        strips //= 2
    return Tiles(strips, BLOCK_Y, BLOCK_X, lines, WARPS, registers)


def next_power_of_two(number: int) -> int:
    """Give the smallest power of two that is not below a number."""
    return 1 << (number - 1).bit_length()
