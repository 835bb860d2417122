"""The weights of a layer's windows, for all of its pixels or for some, in bounded memory."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lookaround import ops
from lookaround.explorer.recording import Call
from lookaround.nn import AttentionStem, LocalAttention2d

BAND_BYTES = 64 << 20  # of gathered keys, which are the largest tensors on the way to the weights
Span = tuple[int, int]  # first row or column, and the one after the last


def window_of(call: Call) -> tuple[tuple[int, int], tuple[int, int]]:
    """Give the size of the windows and the distance of neighbours in them, vertical and horizontal.

    The blocks of a stem are laid out as windows of twice the block, less one.
    """
    layer = call.layer
    if isinstance(layer, AttentionStem):
        side = 2 * layer.block_size - 1
        return (side, side), (1, 1)
    assert isinstance(layer, LocalAttention2d)
    return layer.kernel_size, layer.dilation


def window_weights(
    call: Call, rows: Span, columns: Span, *, content: bool = True
) -> Float[Tensor, "batch rows columns heads kernel_height kernel_width"]:
    """Compute where the pixels of a part of a map look.

    Pixels that are no part of the image, beyond its border or in its padding, have weight 0. Where a layer
    spends weight on them (border "zeros"), the window holds less than 1.

    Args:
        call: of an attention layer.
        rows: of the queries.
        columns: of the queries.
        content: False leaves the keys out, for logits from the position alone.
    """
    if isinstance(call.layer, AttentionStem):
        weights = _stem_windows(call, rows, columns)
    else:
        weights = _layer_windows(call, rows, columns, content)
    return weights.masked_fill(~present_pixels(call, rows, columns), 0.0)


def present_pixels(
    call: Call, rows: Span, columns: Span
) -> Bool[Tensor, "batch rows columns 1 kernel_height kernel_width"]:
    """Tell which pixels of each window can be looked at; none by a query that is padding."""
    down, across = _places(call, 0, rows), _places(call, 1, columns)
    inside = down[1][:, None, :, None] & across[1][None, :, None, :]
    inside = inside.expand(len(call.x), -1, -1, -1, -1)
    mask = call.key_padding_mask
    if mask is not None:
        padded = mask[:, down[0][:, None, :, None], across[0][None, :, None, :]]
        queries = mask[:, rows[0] : rows[1], columns[0] : columns[1]]
        inside = inside & ~padded & ~queries[..., None, None]
    return inside[:, :, :, None]


def bands(call: Call) -> Iterator[Span]:
    """Cut a map into bands of rows whose weights need a bounded amount of memory on the way."""
    (height, width), (kernel, dilation) = call.size, window_of(call)
    layer = call.layer
    assert isinstance(layer, AttentionStem | LocalAttention2d)
    channels = layer.head_dim if isinstance(layer, LocalAttention2d) else 1
    row_bytes = 4 * len(call.x) * width * layer.num_heads * channels * kernel[0] * kernel[1]
    halo = kernel[0] // 2 * dilation[0]
    step = max(1, BAND_BYTES // max(row_bytes, 1) - 2 * halo)
    for top in range(0, height, step):
        yield top, min(top + step, height)


def _places(call: Call, axis: int, span: Span) -> tuple[Tensor, Tensor]:
    """Give for the queries of a span where their windows' rows (or columns) lie, and which can be seen."""
    (kernel, dilation), size = window_of(call), call.size[axis]
    queries = torch.arange(*span, device=call.x.device)[:, None]
    offsets = torch.arange(kernel[axis], device=call.x.device) - kernel[axis] // 2
    places = queries + offsets * dilation[axis]  # queries taps
    seen = (places >= 0) & (places < size)
    if isinstance(call.layer, AttentionStem):
        block = call.layer.block_size
        seen &= places.div(block, rounding_mode="floor") == queries.div(block, rounding_mode="floor")
    return places.clamp(0, size - 1), seen


def _layer_windows(call: Call, rows: Span, columns: Span, content: bool) -> Tensor:
    """Take the part of the map that the windows reach to, and attend there."""
    layer, (kernel, dilation) = call.layer, window_of(call)
    assert isinstance(layer, LocalAttention2d)
    spans = [rows, columns]
    halos = [size // 2 * step for size, step in zip(kernel, dilation, strict=True)]
    wide = [
        (max(0, first - halo), min(side, last + halo))
        for (first, last), halo, side in zip(spans, halos, call.size, strict=True)
    ]
    here = (slice(None), slice(*wide[0]), slice(*wide[1]))
    query, key = call.query_and_key
    mask = call.key_padding_mask
    weights = ops.attention_weights(
        query[here],
        None if key is None or not content else key[here],
        layer.row_embedding,
        layer.column_embedding,
        None if mask is None else mask[here],
        kernel_size=kernel,
        dilation=dilation,
        scale=layer.scale,
        border=layer.border,
    )
    (top, bottom), (left, right) = (
        (first - start, last - start) for (first, last), (start, _) in zip(spans, wide, strict=True)
    )
    return weights[:, top:bottom, left:right]


def _stem_windows(call: Call, rows: Span, columns: Span) -> Tensor:
    """Centre each query's block weights in a window of 2·block - 1 pixels a side."""
    stem = call.layer
    assert isinstance(stem, AttentionStem)
    size = stem.block_size
    top, left = (first - first % size for first, _ in (rows, columns))
    bottom, right = (last + -last % size for _, last in (rows, columns))
    blocks = stem.attention_weights(call.x[..., top:bottom, left:right])
    blocks = blocks.unflatten(-1, (size, size)).unflatten(-3, (size, size))
    windows = blocks.new_zeros(*blocks.shape[:-2], 2 * size - 1, 2 * size - 1)
    for i in range(size):
        for j in range(size):
            down, across = slice(size - 1 - i, 2 * size - 1 - i), slice(size - 1 - j, 2 * size - 1 - j)
            windows[..., i, j, down, across] = blocks[..., i, j, :, :]
    windows = windows.permute(0, 1, 4, 2, 5, 3, 6, 7)  # batch blocks_y y blocks_x x heads window window
    joined: Tensor = windows.flatten(3, 4).flatten(1, 2)
    return joined[:, rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left]
