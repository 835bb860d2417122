"""Which tiles the GPU kernels work with, by window, vector length and dtype.

The entries are reasoned from instruction counts, registers and shared memory as the compiler reports them for
sm_80 and sm_90 (`docs/gpu.md`). None has been timed on a GPU yet.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["forward", "query", "key"]

SHARED_MEMORY_BYTES = 99 * 1024  # what every processor since sm_80 lets one program have


@dataclass(frozen=True)
class Tiles:
    """The tile of one program: strips of block_y x block_x pixels, whose windows are met some lines at a time."""

    strips: int
    block_y: int
    block_x: int
    lines: int
    warps: int

    @property
    def height(self) -> int:
        """Height of the tile in pixels."""
        return self.strips * self.block_y

    @property
    def width(self) -> int:
        """Width of the tile in pixels."""
        return self.block_x


def choose_tiles(kind: Kind, kernel_size: tuple[int, int], vector: int, itemsize: int) -> Tiles:
    """Choose the tile of a kernel.

    A strip is 2x8 pixels, the 16 rows of one tensor-core product, and has a warp to itself: a taller strip wastes
    more of its keys, a wider one more of theirs. All lines of a window are met at once where registers allow, since
    a softmax in steps costs more than the steps' products.

    Args:
        kind: which kernel.
        kernel_size: height and width of the window.
        vector: the larger of head_dim and value_dim.
        itemsize: bytes of a number: 4 for float32.
    """
    lines = _next_power_of_two(kernel_size[0] + 1)
    keys = _next_power_of_two(8 + kernel_size[1] - 1)
    most = _most_keys(kind, vector, itemsize)
    while lines > 1 and lines * keys > most:
        lines //= 2
    lines = max(lines, 16 // keys)
    strips = 4
    while strips > 1 and 2 * strips * lines * keys * vector * itemsize > SHARED_MEMORY_BYTES // 2:
        strips //= 2
    return Tiles(strips, 2, 8, lines, strips)


def _most_keys(kind: Kind, vector: int, itemsize: int) -> int:
    """Limit the keys (or queries) that a strip meets at once, for its registers."""
    if vector > 64 or itemsize == 4:
        return 32
    if kind == "forward":
        return 128 if vector <= 32 else 64
    return 64 if vector <= 32 else 32


def _next_power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
