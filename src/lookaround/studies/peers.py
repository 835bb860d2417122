"""Other ways to compute local attention with relative positions, each as it is commonly written.

They take and return what `lookaround.local_attention` does, with shared tables, scale 1 and no padding.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lookaround.ops.call import Border, Inputs

Peer = Callable[[Inputs], Tensor]


def inside(height: int, width: int, kernel_size: int, device: torch.device) -> Tensor:
    """Say which pixels of each window are in the image: height width window."""
    radius = kernel_size // 2
    padded = F.pad(torch.ones(1, height, width, device=device), (radius,) * 4)
    windows = padded.unfold(1, kernel_size, 1).unfold(2, kernel_size, 1)
    return windows.reshape(height, width, -1) > 0


def window_positions(inputs: Inputs) -> Tensor:
    """Both tables side by side for every pixel of the window: head_dim window."""
    rows, columns = inputs.row_embedding, inputs.column_embedding
    assert rows is not None
    assert columns is not None
    kernel_size = len(rows)
    down = rows[:, None].expand(-1, kernel_size, -1)  # kernel_height kernel_width half_head_dim
    across = columns[None].expand(kernel_size, -1, -1)
    return torch.cat([down, across], dim=-1).flatten(0, 1).T


def unfold_attention(inputs: Inputs, kernel_size: int, border: Border = "mask") -> Tensor:
    """Gather every window by `unfold`, add the positions to the keys, attend: the common implementation."""
    radius = kernel_size // 2
    query, key, value = (
        t.permute(0, 3, 4, 1, 2) for t in (inputs.query, inputs.key, inputs.value) if t is not None
    )

    def gather(maps: Tensor) -> Tensor:  # batch heads head_dim height width window
        padded = F.pad(maps, (radius,) * 4)
        return padded.unfold(3, kernel_size, 1).unfold(4, kernel_size, 1).flatten(-2)

    keys = gather(key) + window_positions(inputs)[:, None, None]
    logits = torch.einsum("bndhw,bndhwk->bnhwk", query, keys)
    if border == "mask":
        height, width = query.shape[-2:]
        outside = ~inside(height, width, kernel_size, query.device)
        logits = logits.masked_fill(outside, -torch.inf)
    weights = logits.softmax(-1)
    return torch.einsum("bnhwk,bndhwk->bhwnd", weights, gather(value))


def shifted_attention(inputs: Inputs, kernel_size: int, border: Border = "mask") -> Tensor:
    """Shift the image once for every pixel of the window instead of gathering windows."""
    query, key, value = inputs.query, inputs.key, inputs.value
    assert key is not None
    height, width = query.shape[1:3]
    radius = kernel_size // 2
    around = (0, 0, 0, 0, radius, radius, radius, radius)
    keys, values, positions = F.pad(key, around), F.pad(value, around), window_positions(inputs)
    places = [(row, column) for row in range(kernel_size) for column in range(kernel_size)]

    def shifted(maps: Tensor, place: tuple[int, int]) -> Tensor:
        return maps[:, place[0] : place[0] + height, place[1] : place[1] + width]

    logits = torch.stack(
        [(query * (shifted(keys, place) + positions[:, i])).sum(-1) for i, place in enumerate(places)], dim=-1
    )
    if border == "mask":
        outside = ~inside(height, width, kernel_size, query.device)
        logits = logits.masked_fill(outside[:, :, None], -torch.inf)
    weights = logits.softmax(-1)
    out = torch.zeros_like(value)
    for i, place in enumerate(places):
        out = out + weights[..., i : i + 1] * shifted(values, place)
    return out


def _by_tiles(height: int, width: int, tile: int = 8) -> Tensor:
    """Number the pixels of an image tile by tile; those at the border may be smaller."""
    y, x = torch.arange(height)[:, None], torch.arange(width)
    tiles = (y // tile) * -(-width // tile) + x // tile
    return tiles.flatten().argsort(stable=True)


def make_flex_attention(kernel_size: int, height: int, width: int, device: torch.device) -> Peer:
    """FlexAttention, compiled, with the window as a block mask and q·[row ; column] as captured tables.

    Border "mask" alone. Pixels are put in the order of square tiles first, so that the windows of a block of
    queries meet few blocks of keys. Order and block mask are made once, here. On a processor it has no
    backward pass.
    """
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    radius, n_pixels = kernel_size // 2, height * width
    order = _by_tiles(height, width).to(device)
    back = order.argsort()
    y, x = order // width, order % width  # of each place in the order

    def in_window(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return ((y[query] - y[key]).abs() <= radius) & ((x[query] - x[key]).abs() <= radius)

    mask = create_block_mask(in_window, None, None, n_pixels, n_pixels, device=device)
    compiled = torch.compile(flex_attention, dynamic=False)

    def attend(inputs: Inputs) -> Tensor:
        query, key, value = (
            t.flatten(1, 2)[:, order].transpose(1, 2).contiguous()
            for t in (inputs.query, inputs.key, inputs.value)
            if t is not None
        )
        rows, columns = inputs.row_embedding, inputs.column_embedding
        assert rows is not None
        assert columns is not None
        upper, lower = query.chunk(2, dim=-1)
        to_rows, to_columns = upper @ rows.T, lower @ columns.T  # batch heads pixels kernel_size

        def add_position(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            # Pixels outside of the window are masked later, but their index must lead somewhere.
            down = (y[key] - y[query] + radius).clamp(0, kernel_size - 1)
            across = (x[key] - x[query] + radius).clamp(0, kernel_size - 1)
            return score + to_rows[batch, head, query, down] + to_columns[batch, head, query, across]

        out: Tensor = compiled(query, key, value, score_mod=add_position, block_mask=mask, scale=1.0)
        pixels: Tensor = out.transpose(1, 2)[:, back].unflatten(1, (height, width))
        return pixels

    return attend
