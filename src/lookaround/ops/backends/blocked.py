"""Portable PyTorch without a window-sized copy of the image, on any device.

The image is cut into small blocks of queries. The queries of a block share most of their keys: the block and
a halo of the window's radius around it. So every block is one small dense attention, two matrix products with
a softmax between them, in which the keys outside a query's own window are hidden. Dilation d first splits the
image into d*d interleaved phases, each of which is an image without dilation.

Extra memory: the halo copies of key and value, `(1 + 2·radius/block)²` times their size, and the logits of a
few blocks at a time. The backward pass computes the logits again instead of keeping them.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lookaround.ops.backends.base import Backend, clear_padding, hide_padding
from lookaround.ops.call import Call, Inputs

# Measured at the ResNet-50 shapes: blocks of 4 or 14 and chunks of 16 MiB are slower.
BLOCK = 8  # queries a side
CHUNK_LOGITS = 1 << 20  # logits held at once: 4 MiB of float32


@dataclass(frozen=True)
class Layout:
    """How an image is cut: phases by dilation, then blocks, each with a halo."""

    dilation: tuple[int, int]
    radius: tuple[int, int]
    block: tuple[int, int]

    @property
    def halo(self) -> tuple[int, int]:
        """Height and width of a block with its halo."""
        return self.block[0] + 2 * self.radius[0], self.block[1] + 2 * self.radius[1]


class _Blocks(NamedTuple):
    """Everything but the values, cut into blocks; a group is one block of one image."""

    query: Tensor  # groups heads queries head_dim
    key: Tensor | None  # groups heads keys head_dim
    rows: Tensor | None  # groups heads block_y block_x halo_y: q·row
    columns: Tensor | None  # groups heads block_y block_x halo_x: q·column
    absent: Tensor | None  # groups keys
    outside: Tensor  # queries keys

    def take(self, groups: slice) -> "_Blocks":
        """Take some of the groups."""
        return _Blocks(
            query=self.query[groups],
            key=None if self.key is None else self.key[groups],
            rows=None if self.rows is None else self.rows[groups],
            columns=None if self.columns is None else self.columns[groups],
            absent=None if self.absent is None else self.absent[groups],
            outside=self.outside,
        )


def run(inputs: Inputs, call: Call) -> Tensor:
    """Compute local attention block by block: batch height width heads value_dim."""
    inputs = hide_padding(inputs)
    layout = _choose_layout(call)
    dtype = call.accumulation_dtype
    query = inputs.query.to(dtype)
    query = _cut_blocks(query if call.scale == 1.0 else query * call.scale, layout)
    key = None if inputs.key is None else _cut_halos(inputs.key.to(dtype), layout)
    value = _cut_halos(inputs.value.to(dtype), layout)
    rows, columns = _position_logits(query, inputs, layout)
    outside = _outside_window(call, layout, query.device)
    absent = _absent_keys(inputs, call, layout)
    blocks = _Blocks(query.flatten(2, 3), key, rows, columns, absent, outside)
    # Exported graphs hold plain operations only; elsewhere the backward pass recomputes.
    recompute = call.requires_grad and not torch.compiler.is_exporting()
    out = _Attend.apply(value, *blocks) if recompute else _attend(blocks, value)
    return clear_padding(_join_blocks(out, layout, call), inputs.key_padding_mask).to(call.dtype)


def _choose_layout(call: Call) -> Layout:
    sizes = (call.height, call.width)
    phase_sizes = [-(-size // step) for size, step in zip(sizes, call.dilation, strict=True)]
    block_y, block_x = (_choose_block(size) for size in phase_sizes)
    return Layout(call.dilation, call.radius, (max(block_y, call.radius[0]), max(block_x, call.radius[1])))


def _choose_block(size: int) -> int:
    """Cut an image side into equal blocks of at most BLOCK, so that the last one is not mostly padding."""
    if not _is_known(size):
        return BLOCK  # a symbolic size must not decide: the traced graph serves all sizes
    return -(-size // -(-size // BLOCK))


def _cut_blocks(image: Tensor, layout: Layout) -> Tensor:
    """Cut an image into blocks: groups heads block_height block_width dim."""
    pieces = _split(image, layout)  # batch blocks_y block_y phase_y blocks_x block_x phase_x heads dim
    return pieces.permute(0, 3, 6, 1, 4, 7, 2, 5, 8).flatten(0, 4)


def _cut_halos(image: Tensor, layout: Layout) -> Tensor:
    """Cut an image into blocks with their halos: groups heads halo_height*halo_width dim."""
    pieces = _split(image, layout)
    pieces = _add_halo(_add_halo(pieces, 1, layout.radius[0]), 4, layout.radius[1])
    return pieces.permute(0, 3, 6, 1, 4, 7, 2, 5, 8).flatten(0, 4).flatten(2, 3)


def _join_blocks(out: Tensor, layout: Layout, call: Call) -> Tensor:
    """Undo `_cut_blocks` on groups heads queries dim: batch height width heads dim."""
    (block_y, block_x), (phase_y, phase_x) = layout.block, layout.dilation
    blocks_y = _count_blocks(call.height, block_y * phase_y)
    blocks_x = _count_blocks(call.width, block_x * phase_x)
    grid = (call.batch, phase_y, phase_x, blocks_y, blocks_x)
    pieces = out.reshape(*grid, call.num_heads, block_y, block_x, call.value_dim)
    image = pieces.permute(0, 3, 6, 1, 4, 7, 2, 5, 8).flatten(4, 6).flatten(1, 3)
    if _is_known(call.height) and _is_known(call.width):
        return image[:, : call.height, : call.width]
    # Negative padding copies, where a view would ask how symbolic sizes compare.
    return F.pad(image, (0, 0, 0, 0, 0, call.width - image.shape[2], 0, call.height - image.shape[1]))


def _count_blocks(size: int, block: int) -> int:
    """Count the blocks that cover an image side; one more if symbolic, for graphs treat one block apart."""
    return -(-size // block) if _is_known(size) else (size - 1) // block + 2


def _is_known(size: int) -> bool:
    """Tell whether a size is a number, and not a symbol of a graph that serves many."""
    if not torch.compiler.is_compiling():
        return True
    from torch.fx.experimental.symbolic_shapes import has_static_value  # imports sympy, which is slow

    return has_static_value(size)


def _split(image: Tensor, layout: Layout) -> Tensor:
    """Pad to whole blocks and split: batch blocks_y block_y phase_y blocks_x block_x phase_x heads dim."""
    (block_y, block_x), (phase_y, phase_x) = layout.block, layout.dilation
    step_y, step_x = block_y * phase_y, block_x * phase_x
    height, width = image.shape[1:3]
    missing_y = _count_blocks(height, step_y) * step_y - height
    missing_x = _count_blocks(width, step_x) * step_x - width
    image = F.pad(image, (0, 0, 0, 0, 0, missing_x, 0, missing_y))
    # unfold cuts without asking whether a symbolic size is divisible, as unflatten would.
    pieces: Tensor = image.unfold(1, step_y, step_y).unfold(2, step_x, step_x)
    pieces = pieces.unflatten(-1, (block_x, phase_x)).unflatten(-3, (block_y, phase_y))
    return pieces.permute(0, 1, 5, 6, 2, 7, 8, 3, 4)


def _add_halo(pieces: Tensor, dim: int, radius: int) -> Tensor:
    """Put the neighbours' nearest pixels around each block; `dim` counts blocks, `dim + 1` their pixels."""
    if radius == 0:
        return pieces
    size = pieces.shape[dim + 1]
    before, after = pieces.narrow(dim + 1, size - radius, radius), pieces.narrow(dim + 1, 0, radius)
    others = (0, 0) * (pieces.dim() - 1 - dim)
    return torch.cat([F.pad(before, (*others, 1, -1)), pieces, F.pad(after, (*others, -1, 1))], dim + 1)


def _position_logits(query: Tensor, inputs: Inputs, layout: Layout) -> tuple[Tensor | None, Tensor | None]:
    """Compute q·row (groups heads y x halo_y) and q·column (groups heads y x halo_x)."""
    rows = columns = None
    half = query.shape[-1] // 2
    if inputs.row_embedding is not None:
        table = _spread_table(inputs.row_embedding.to(query.dtype), layout.block[0])
        rows = torch.einsum("gnyxd,nykd->gnyxk", query[..., :half], table.expand(query.shape[1], -1, -1, -1))
    if inputs.column_embedding is not None:
        table = _spread_table(inputs.column_embedding.to(query.dtype), layout.block[1])
        columns = torch.einsum(
            "gnyxd,nxkd->gnyxk", query[..., half:], table.expand(query.shape[1], -1, -1, -1)
        )
    return rows, columns


def _spread_table(table: Tensor, block: int) -> Tensor:
    """Lay a table out by query and key position in a block: heads (or 1) block halo head_dim/2."""
    offsets = _offsets(block, table.shape[-2], table.device)
    spread = table[..., offsets.clamp(0, table.shape[-2] - 1), :]
    spread = spread.masked_fill(_outside(offsets, table.shape[-2])[..., None], 0.0)
    return spread if table.dim() == 3 else spread[None]


def _offsets(block: int, kernel: int, device: torch.device) -> Tensor:
    """Give the index into the window of each key for each query of a block: block halo."""
    halo = block + kernel - 1
    return torch.arange(halo, device=device) - torch.arange(block, device=device)[:, None]


def _outside(offsets: Tensor, kernel: int) -> Tensor:
    return (offsets < 0) | (offsets >= kernel)


def _outside_window(call: Call, layout: Layout, device: torch.device) -> Tensor:
    """Tell which keys of a block lie outside each query's window: queries keys."""
    rows = _outside(_offsets(layout.block[0], call.kernel_size[0], device), call.kernel_size[0])
    columns = _outside(_offsets(layout.block[1], call.kernel_size[1], device), call.kernel_size[1])
    return (rows[:, None, :, None] | columns[None, :, None, :]).flatten(2, 3).flatten(0, 1)


def _absent_keys(inputs: Inputs, call: Call, layout: Layout) -> Tensor | None:
    """Tell which keys of each block do not exist: groups keys. None when all count, as under "zeros"."""
    if call.border == "zeros":
        return None
    if inputs.key_padding_mask is None:
        present = torch.ones(1, call.height, call.width, dtype=torch.bool, device=call.device)
        present = present.expand(call.batch, -1, -1)
    else:
        present = ~inputs.key_padding_mask
    return ~_cut_halos(present[..., None, None], layout).flatten(1)


def _hide(logits: Tensor, outside: Tensor, absent: Tensor | None) -> Tensor:
    """Set the logits (groups heads queries keys) of hidden keys to minus infinity."""
    if absent is None:
        return logits.masked_fill(outside, -torch.inf)
    hidden = outside | absent[:, None]
    # A query with nothing to see is outside the image or padded: it is cut off or cleared in the end.
    hidden = hidden & ~hidden.all(-1, keepdim=True)
    return logits.masked_fill(hidden[:, None], -torch.inf)


def _attend(blocks: _Blocks, value: Tensor) -> Tensor:
    """Attend inside every block, a few blocks at a time: groups heads queries value_dim."""
    parts = [_weights(blocks.take(chunk)) @ value[chunk] for chunk in _chunks(blocks)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _weights(blocks: _Blocks) -> Tensor:
    """Compute the softmax over the visible keys: groups heads queries keys."""
    query, key, rows, columns, absent, outside = blocks
    if key is None:
        logits = query.new_zeros((*query.shape[:-1], outside.shape[-1]))
    else:
        logits = query @ key.transpose(-1, -2)
    # The position parts are made finite first, so that infinity cannot meet minus infinity.
    largest = torch.finfo(logits.dtype).max
    if rows is not None:
        by_row = logits.unflatten(-1, (rows.shape[-1], -1))
        logits = (by_row + rows.clamp(-largest, largest).flatten(2, 3)[..., :, None]).flatten(-2)
    if columns is not None:
        by_column = logits.unflatten(-1, (-1, columns.shape[-1]))
        logits = (by_column + columns.clamp(-largest, largest).flatten(2, 3)[..., None, :]).flatten(-2)
    return _hide(logits.clamp(-largest, largest), outside, absent).softmax(-1)


def _chunks(blocks: _Blocks) -> list[slice]:
    """Cut the groups into runs that hold at most CHUNK_LOGITS logits; a traced graph has one run."""
    groups, heads = blocks.query.shape[:2]
    if torch.compiler.is_compiling() or not isinstance(groups, int):
        return [slice(None)]
    size = max(1, CHUNK_LOGITS // (heads * blocks.outside.numel()))
    return [slice(start, min(start + size, groups)) for start in range(0, max(groups, 1), size)]


class _Attend(torch.autograd.Function):
    """`_attend` whose backward pass computes the weights again, chunk by chunk."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, *blocks: Any) -> Tensor:
        return _attend(_Blocks(*blocks), value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor | None, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        value, *rest = ctx.saved_tensors
        blocks = _Blocks(*rest)
        parts = [
            _attend_backward(gradients[0][chunk], value[chunk], blocks.take(chunk))
            for chunk in _chunks(blocks)
        ]
        return (*_join(parts), None, None)


def _join(parts: list[tuple[Tensor | None, ...]]) -> list[Tensor | None]:
    """Concatenate the parts of each gradient, freeing them before the next, to hold no second copy of all."""
    columns = list(zip(*parts, strict=True))
    parts.clear()
    joined: list[Tensor | None] = []
    while columns:
        column = [part for part in columns.pop(0) if part is not None]
        joined.append(torch.cat(column) if column else None)
        del column
    return joined


def _attend_backward(gradient: Tensor, value: Tensor, blocks: _Blocks) -> tuple[Tensor | None, ...]:
    """Compute the gradients of value, query, key, rows and columns for some blocks."""
    query, key, rows, columns = blocks[:4]
    weights = _weights(blocks)
    to_value = weights.transpose(-1, -2) @ gradient
    to_weights = gradient @ value.transpose(-1, -2)
    to_logits = weights * (to_weights - (weights * to_weights).sum(-1, keepdim=True))
    to_query = torch.zeros_like(query) if key is None else to_logits @ key
    to_key = None if key is None else to_logits.transpose(-1, -2) @ query
    to_rows = to_columns = None
    if rows is not None:
        to_rows = to_logits.unflatten(-1, (rows.shape[-1], -1)).sum(-1).view_as(rows)
    if columns is not None:
        to_columns = to_logits.unflatten(-1, (-1, columns.shape[-1])).sum(-2).view_as(columns)
    return to_value, to_query, to_key, to_rows, to_columns


def _reasons_against(call: Call) -> list[str]:
    return []


BACKEND = Backend("blocked", "portable PyTorch, block by block; any device", run, _reasons_against)
