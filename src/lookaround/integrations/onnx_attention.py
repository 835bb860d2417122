"""Local attention in ONNX's own operators, written down once instead of traced.

While a graph is traced, each layer is one operator; here is what ONNX has in its place. Keys are laid out
once for each column of the window, and met row by row: seven copies of the image for a window of 7x7, not 49.
No size of the image is written down, so that the graph serves all.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from onnxscript import opset18
from torch import Tensor, nn

from lookaround.nn import LocalAttention2d
from lookaround.nn.projected_attention import Finish, average
from lookaround.ops.backends import reference
from lookaround.ops.call import Inputs, check_call, unpack

op: Any = opset18  # whose types know arrays alone, not the values of a graph
LARGEST = torch.finfo(torch.float32).max
LAST = 2**63 - 1  # as the end of a slice: up to the last
FLOAT, BOOL = 1, 9  # onnx.TensorProto
HEADS_FIRST, HEADS_LAST = [0, 3, 1, 2, 4], [0, 2, 3, 1, 4]


@torch.library.custom_op("lookaround::window_attention", mutates_args=())
def window_attention(
    query: Tensor,
    key: Tensor | None,
    value: Tensor,
    row_embedding: Tensor | None,
    column_embedding: Tensor | None,
    key_padding_mask: Tensor | None,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
    border: str,
) -> Tensor:
    """Compute `ops.local_attention` by its equation."""
    inputs = Inputs(query, key, value, row_embedding, column_embedding, key_padding_mask)
    pairs: dict[str, Any] = {"kernel_size": tuple(kernel_size), "dilation": tuple(dilation)}
    return reference.run(inputs, check_call("export", inputs, **pairs, scale=scale, border=border))


@window_attention.register_fake
def _(query: Tensor, key: Tensor | None, value: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(value, memory_format=torch.contiguous_format)


def by_one_operator(model: nn.Module) -> None:
    """Let every attention layer of a network trace as one operator; changes the network."""
    for module in model.modules():
        if isinstance(module, LocalAttention2d):
            module.attend = partial(_attend, module)  # type: ignore[method-assign]


def _attend(
    layer: LocalAttention2d, x: Tensor, mask: Tensor | None = None, finish: Finish | None = None
) -> Tensor:
    """Do `LocalAttention2d.attend` for a batch."""
    query, key, value = unpack(layer._project(x))
    tables = layer.row_embedding, layer.column_embedding
    options = layer.kernel_size, layer.dilation, layer.scale, layer.border
    out = window_attention(query, key, value, *tables, mask, *options)
    out = average(out.flatten(-2).permute(0, 3, 1, 2), layer.stride, mask)
    if finish is None:
        return out
    out = out + finish.shift[:, None, None]
    return out.relu() if finish.relu else out


def translate(
    query: Any,
    key: Any,
    value: Any,
    row_embedding: Any,
    column_embedding: Any,
    key_padding_mask: Any,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
    border: str,
) -> Any:
    """Write `window_attention` in ONNX's operators; tensors are values of the graph that is being built."""
    window = _Window(kernel_size, dilation)
    query_ = op.Transpose(op.Cast(query, to=FLOAT), perm=HEADS_FIRST)  # batch heads height width head_dim
    hidden = None
    if key_padding_mask is not None:
        hidden = op.Unsqueeze(op.Cast(key_padding_mask, to=BOOL), [1, 4])  # batch 1 height width 1
        query_ = op.Where(hidden, 0.0, query_)
    logits = window.logits(query_, None if key is None else _image(key, hidden))
    logits = _add_positions(logits, query_, row_embedding, column_embedding, window)
    logits = op.Clip(op.Mul(logits, scale), -LARGEST, LARGEST)
    if border == "mask":
        logits = op.Where(window.presence(query_, hidden), logits, float("-inf"))
    flat = op.Reshape(logits, [0, 0, 0, 0, window.rows * window.columns])
    out = window.sums(op.Softmax(flat, axis=-1), _image(value, hidden))
    if hidden is not None:
        out = op.Where(hidden, 0.0, out)
    return op.CastLike(op.Transpose(out, perm=HEADS_LAST), query)


class _Window:
    """The window of a layer, and what is done in it; images are batch heads height width dim.

    Args:
        kernel_size: rows and columns.
        dilation: distance between them.
    """

    def __init__(self, kernel_size: Sequence[int], dilation: Sequence[int]) -> None:
        self.rows, self.columns = kernel_size
        self.dilation = dilation
        self.radius = [size // 2 * step for size, step in zip(kernel_size, dilation, strict=True)]

    def shifted(self, image: Any) -> list[Any]:
        """Give for each row of the window the pixels in it: batch heads height width columns dim."""
        above, left = self.radius
        before = [0, 0, above, left, 0]
        padded = op.Unsqueeze(op.Pad(image, [*before, *before]), [4])
        columns = [self._slice(padded, 1, index, self.columns) for index in range(self.columns)]
        together = op.Concat(*columns, axis=4) if len(columns) > 1 else columns[0]
        return [self._slice(together, 0, index, self.rows) for index in range(self.rows)]

    def _slice(self, image: Any, side: int, index: int, count: int) -> Any:
        if count == 1:
            return image
        start, left = index * self.dilation[side], (count - 1 - index) * self.dilation[side]
        return op.Slice(image, [start], [-left if left else LAST], [2 + side])

    def logits(self, query: Any, key: Any) -> Any:
        """Compute q·k, or zeros where there are no keys: batch heads height width rows columns."""
        if key is None:
            shape = op.Concat(op.Shape(query, start=0, end=4), [self.rows, self.columns], axis=0)
            return op.Expand(0.0, shape)
        asked = op.Unsqueeze(query, [5])  # batch heads height width head_dim 1
        parts = [op.MatMul(row, asked) for row in self.shifted(key)]  # batch heads height width columns 1
        joined = op.Concat(*parts, axis=4) if len(parts) > 1 else parts[0]
        return op.Reshape(joined, [0, 0, 0, 0, self.rows, self.columns])

    def sums(self, weights: Any, value: Any) -> Any:
        """Compute the sums of the values: batch heads height width value_dim."""
        asked = op.Unsqueeze(weights, [4])  # batch heads height width 1 rows*columns
        rows = self.shifted(value)
        if self.rows == 1:
            return op.Squeeze(op.MatMul(asked, rows[0]), [4])
        parts = op.Split(asked, axis=-1, num_outputs=self.rows)
        products = [op.MatMul(part, row) for part, row in zip(parts, rows, strict=True)]
        return op.Squeeze(op.Sum(*products), [4])

    def presence(self, query: Any, hidden: Any) -> Any:
        """Tell which pixels of each window exist: batch (or 1) 1 height width rows columns."""
        if hidden is not None:
            shown = op.Cast(op.Not(hidden), to=FLOAT)
            rows = self.shifted(shown)  # batch 1 height width columns 1
            joined = op.Concat(*rows, axis=4) if len(rows) > 1 else rows[0]
            present = op.Cast(op.Reshape(joined, [0, 0, 0, 0, self.rows, self.columns]), to=BOOL)
            # A padded query sees anything rather than nothing; it is cleared in the end.
            return op.Or(present, op.Unsqueeze(hidden, [5]))
        rows_in, columns_in = (self._inside(query, side) for side in (0, 1))
        return op.And(
            op.Unsqueeze(rows_in, [1, 3]), op.Unsqueeze(columns_in, [0, 2])
        )  # height width rows columns

    def _inside(self, query: Any, side: int) -> Any:
        """Tell which rows (or columns) of the window exist: height rows."""
        size = op.Squeeze(op.Shape(query, start=2 + side, end=3 + side), [0])
        count, step = (self.rows, self.columns)[side], self.dilation[side]
        offsets = op.Constant(value_ints=[(index - count // 2) * step for index in range(count)])
        places = op.Add(op.Unsqueeze(op.Range(0, size, 1), [1]), offsets)
        return op.And(op.GreaterOrEqual(places, 0), op.Less(places, size))


def _image(tensor: Any, hidden: Any) -> Any:
    """Bring key or value into the form of an image, padded pixels zero: batch heads height width dim."""
    image = op.Transpose(op.Cast(tensor, to=FLOAT), perm=HEADS_FIRST)
    return image if hidden is None else op.Where(hidden, 0.0, image)


def _add_positions(logits: Any, query: Any, rows: Any, columns: Any, window: _Window) -> Any:
    """Add q·row and q·column, kept finite, so that infinity cannot meet minus infinity."""
    for table, first, axis in ((rows, True, 5), (columns, False, 4)):
        if table is None:
            continue
        half = table.shape[-1]
        part = op.Slice(query, [0 if first else half], [half if first else 2 * half], [4])
        table = op.Cast(table, to=FLOAT)
        per_head = len(table.shape or rows.shape) == 3
        turned = op.Transpose(table, perm=[0, 2, 1] if per_head else [1, 0])
        if per_head:
            turned = op.Unsqueeze(turned, [1])  # heads 1 half kernel
        product = op.Clip(op.MatMul(part, turned), -LARGEST, LARGEST)
        logits = op.Add(logits, op.Unsqueeze(product, [axis]))
    return logits


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.lookaround.window_attention.default: translate
}
