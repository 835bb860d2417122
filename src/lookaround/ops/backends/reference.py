"""The equation, step by step: gather the window, attend. Slow, always right, every dtype.

It holds a copy of key and value for every pixel of the window (k*k copies of the image), and is
differentiable to any order, forward mode included, because it is made of plain PyTorch operations.
"""

import torch
from torch import Tensor

from lookaround.ops.backends.base import Backend, clear_padding, hide_padding
from lookaround.ops.call import Call, Inputs


def run(inputs: Inputs, call: Call) -> Tensor:
    """Compute local attention by the equation: batch height width heads value_dim."""
    inputs = hide_padding(inputs)
    weights = window_weights(inputs, call)
    value = gather_windows(inputs.value.to(call.accumulation_dtype), call)
    out = torch.einsum("bywnij,byiwjnd->bywnd", weights, value)
    return clear_padding(out, inputs.key_padding_mask).to(call.dtype)


def window_weights(inputs: Inputs, call: Call) -> Tensor:
    """Compute the softmax weights of every window: batch height width heads kernel_height kernel_width."""
    logits = window_logits(inputs, call)
    if call.border == "zeros":
        return logits.flatten(-2).softmax(-1).view_as(logits)
    present = window_presence(inputs, call)  # batch height width 1 kernel_height kernel_width
    attends = present.any(-1, keepdim=True).any(-2, keepdim=True)
    logits = logits.masked_fill(~present & attends, -torch.inf)
    return logits.flatten(-2).softmax(-1).view_as(logits).masked_fill(~present, 0.0)


def window_logits(inputs: Inputs, call: Call) -> Tensor:
    """Compute scale * (q·k + q·[row ; column]): batch height width heads kernel_height kernel_width."""
    query = inputs.query.to(call.accumulation_dtype)
    logits = query.new_zeros((*query.shape[:-1], *call.kernel_size))
    if inputs.key is not None:
        key = gather_windows(inputs.key.to(query.dtype), call)
        logits = logits + torch.einsum("bywnd,byiwjnd->bywnij", query, key)
    half = call.head_dim // 2
    if inputs.row_embedding is not None:
        logits = logits + _table_logits(query[..., :half], inputs.row_embedding)[..., :, None]
    if inputs.column_embedding is not None:
        logits = logits + _table_logits(query[..., half:], inputs.column_embedding)[..., None, :]
    largest = torch.finfo(query.dtype).max
    return (call.scale * logits).clamp(-largest, largest)


def gather_windows(image: Tensor, call: Call) -> Tensor:
    """Gather the window around each pixel: batch height kernel_height width kernel_width heads dim."""
    rows, columns = _window_positions(call, image.device)
    windows = image[:, rows.clamp(0, call.height - 1)[:, :, None, None], columns.clamp(0, call.width - 1)]
    return windows.masked_fill(~_inside(rows, columns, call)[..., None, None], 0.0)


def window_presence(inputs: Inputs, call: Call) -> Tensor:
    """Tell which pixels of each window exist: batch (or 1) height width 1 kernel_height kernel_width."""
    rows, columns = _window_positions(call, inputs.query.device)
    present = _inside(rows, columns, call)[None]
    if inputs.key_padding_mask is not None:
        rows = rows.clamp(0, call.height - 1)[:, :, None, None]
        present = present & ~inputs.key_padding_mask[:, rows, columns.clamp(0, call.width - 1)]
    return present.permute(0, 1, 3, 2, 4).unsqueeze(3)


def _table_logits(query: Tensor, table: Tensor) -> Tensor:
    table = table.to(query.dtype)
    equation = "bywnd,kd->bywnk" if table.dim() == 2 else "bywnd,nkd->bywnk"
    # Finite, so that it cannot meet an overflown q·k as infinity minus infinity.
    largest = torch.finfo(query.dtype).max
    return torch.einsum(equation, query, table).clamp(-largest, largest)


def _window_positions(call: Call, device: torch.device) -> tuple[Tensor, Tensor]:
    (kernel_height, kernel_width), (step_y, step_x) = call.kernel_size, call.dilation
    offsets_y = (torch.arange(kernel_height, device=device) - kernel_height // 2) * step_y
    offsets_x = (torch.arange(kernel_width, device=device) - kernel_width // 2) * step_x
    rows = torch.arange(call.height, device=device)[:, None] + offsets_y  # height kernel_height
    columns = torch.arange(call.width, device=device)[:, None] + offsets_x  # width kernel_width
    return rows, columns


def _inside(rows: Tensor, columns: Tensor, call: Call) -> Tensor:
    row_inside = (rows >= 0) & (rows < call.height)
    column_inside = (columns >= 0) & (columns < call.width)
    return row_inside[:, :, None, None] & column_inside  # height kernel_height width kernel_width


def _reasons_against(call: Call) -> list[str]:
    return []


BACKEND = Backend("reference", "the equation, gathered window by window; slow", run, _reasons_against)
