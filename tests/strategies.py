"""Calls of the operator, drawn by hypothesis: small, and chosen to hurt."""

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

LAYOUTS = ("contiguous", "channels_last_view", "sliced", "expanded")
TABLES = ("none", "row", "column", "both")


@dataclass(frozen=True)
class Case:
    """The shape of one call; the same seed gives the same tensors, whatever the dtype."""

    batch: int = 2
    height: int = 5
    width: int = 4
    heads: int = 2
    head_dim: int = 4
    value_dim: int = 3
    kernel_size: int | tuple[int, int] = 3
    dilation: int | tuple[int, int] = 1
    scale: float = 1.0
    border: str = "mask"
    has_key: bool = True
    tables: str = "both"
    row_per_head: bool = False
    column_per_head: bool = False
    padding: float = 0.0
    layout: str = "contiguous"
    seed: int = 0

    @property
    def options(self) -> dict[str, Any]:
        """Give the keyword arguments of the call."""
        names = ("kernel_size", "dilation", "scale", "border")
        return {name: getattr(self, name) for name in names}

    def tensors(self, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[Tensor | None, ...]:
        """Give query, key, value, row_embedding, column_embedding, key_padding_mask."""
        draw = torch.Generator().manual_seed(self.seed)
        kernel = (self.kernel_size,) * 2 if isinstance(self.kernel_size, int) else self.kernel_size
        query = self._image(self.head_dim, draw)
        key = self._image(self.head_dim, draw) if self.has_key else None
        value = self._image(self.value_dim, draw)
        row = self._table("row", kernel[0], self.row_per_head, draw)
        column = self._table("column", kernel[1], self.column_per_head, draw)
        floats = (self._laid_out(t, dtype, device) for t in (query, key, value))
        tables = (None if t is None else t.to(device, dtype) for t in (row, column))
        return (*floats, *tables, self._mask(draw, device))

    def upstream(self, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
        """Give a gradient of the output, laid out as the inputs are."""
        grad = self._image(self.value_dim, torch.Generator().manual_seed(self.seed + 1))
        return self._laid_out(grad, dtype, device)

    def _image(self, channels: int, draw: torch.Generator) -> Tensor:
        shape = (self.batch, self.height, self.width, self.heads, channels)
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    def _table(self, which: str, length: int, per_head: bool, draw: torch.Generator) -> Tensor | None:
        if self.tables not in (which, "both"):
            return None
        shape = (self.heads, length, self.head_dim // 2) if per_head else (length, self.head_dim // 2)
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    def _mask(self, draw: torch.Generator, device: str) -> Tensor | None:
        if self.padding == 0:
            return None
        mask = torch.rand(self.batch, self.height, self.width, generator=draw) < self.padding
        return mask.to(device)

    def _laid_out(self, tensor: Tensor | None, dtype: torch.dtype, device: str) -> Tensor | None:
        if tensor is None:
            return None
        tensor = tensor.to(device, dtype)
        if self.layout == "channels_last_view":  # the memory of an NCHW tensor
            return tensor.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)
        if self.layout == "sliced":  # one of several, side by side in one projection's output
            return torch.cat([tensor, torch.full_like(tensor, torch.nan)], dim=-1)[..., : tensor.shape[-1]]
        if self.layout == "expanded" and self.batch > 0:  # one picture, seen by the whole batch
            return tensor[:1].expand_as(tensor)
        return tensor


# The calls that break careless code, by the reason they do; every backend runs each of them.
HURTFUL = {
    "everything": Case(kernel_size=(3, 5), dilation=(2, 1), scale=0.5, row_per_head=True, padding=0.3),
    "everything_zeros": Case(
        kernel_size=(5, 3), dilation=(1, 2), border="zeros", column_per_head=True, padding=0.3
    ),
    "empty_batch": Case(batch=0, padding=0.3),
    "one_pixel": Case(height=1, width=1, kernel_size=5),
    "one_pixel_zeros": Case(height=1, width=1, kernel_size=5, border="zeros"),
    "one_row": Case(height=1, width=7, kernel_size=(7, 3)),
    "one_column_zeros": Case(height=7, width=1, kernel_size=(3, 7), border="zeros"),
    "window_wider_than_image": Case(height=3, width=4, kernel_size=15, border="zeros"),
    "window_of_one": Case(kernel_size=1),
    "dilation_beyond_image": Case(height=2, width=3, dilation=3, kernel_size=5),
    "position_only": Case(has_key=False, kernel_size=5, height=6),
    "position_only_zeros": Case(has_key=False, border="zeros", padding=0.3),
    "no_logits_at_all": Case(has_key=False, tables="none", head_dim=3),
    "no_logits_at_all_zeros": Case(has_key=False, tables="none", border="zeros", padding=0.3),
    "row_table_alone": Case(tables="row", row_per_head=True, heads=3),
    "column_table_alone": Case(tables="column", border="zeros"),
    "odd_head_dim": Case(tables="none", head_dim=5, value_dim=7),
    "single_channel": Case(tables="none", head_dim=1, value_dim=1, heads=1),
    "all_padded": Case(padding=1.0),
    "all_padded_zeros": Case(padding=1.0, border="zeros"),
    "channels_last_view": Case(layout="channels_last_view", kernel_size=5),
    "sliced": Case(layout="sliced", border="zeros"),
    "several_blocks": Case(batch=1, height=11, width=18, heads=1, kernel_size=(5, 3), padding=0.1),
    "several_blocks_dilated_zeros": Case(
        batch=1, height=18, width=9, heads=1, dilation=(2, 1), border="zeros"
    ),
    "expanded": Case(layout="expanded", padding=0.3),
}


def pairs(numbers: st.SearchStrategy[int]) -> st.SearchStrategy[int | tuple[int, int]]:
    """Draw one number for both directions, or one for each."""
    return numbers | st.tuples(numbers, numbers)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw calls: empty batches, single pixels, windows wider than the picture, odd dimensions, and so on."""
    tables = draw(st.sampled_from(TABLES))
    half_or_whole = draw(st.integers(1, 5))
    sides = st.sampled_from((4, 5, 3, 6, 2, 1, 9, 18))  # the last two are more than one block of `blocked`
    kernels = st.sampled_from((3, 5, 7, 1, 15))
    return Case(
        batch=draw(st.sampled_from((2, 1, 3, 2, 1, 2, 1, 0))),
        height=draw(sides),
        width=draw(sides),
        heads=draw(st.integers(1, 3)),
        head_dim=half_or_whole if tables == "none" else 2 * half_or_whole,
        value_dim=draw(st.integers(1, 5)),
        kernel_size=draw(pairs(kernels)),
        dilation=draw(st.just(1) | pairs(st.integers(1, 3))),
        scale=draw(st.sampled_from((1.0, 0.5, 1.5))),
        border=draw(st.sampled_from(("mask", "zeros"))),
        has_key=draw(st.sampled_from((True, True, False))),
        tables=tables,
        row_per_head=draw(st.booleans()),
        column_per_head=draw(st.booleans()),
        padding=draw(st.sampled_from((0.0, 0.3, 0.0, 0.3, 0.8))),
        layout=draw(st.sampled_from(LAYOUTS)),
        seed=draw(st.integers(0, 2**16)),
    )
