"""One checked, frozen description of a call of the operator.

Backends look at a `Call` to say whether they can serve, and never check tensors again.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lookaround.errors import ArgumentError, DtypeError, ShapeError, message

Border = Literal["mask", "zeros"]
BORDERS: tuple[Border, ...] = ("mask", "zeros")
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class Inputs(NamedTuple):
    """The tensors of one call."""

    query: Tensor  # batch height width heads head_dim
    key: Tensor | None  # batch height width heads head_dim
    value: Tensor  # batch height width heads value_dim
    row_embedding: Tensor | None  # [heads] kernel_height head_dim/2
    column_embedding: Tensor | None  # [heads] kernel_width head_dim/2
    key_padding_mask: Tensor | None  # batch height width


def unpack(projected: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """Split a projection (batch height width maps heads head_dim) into query, key (if any) and value."""
    maps = projected.unbind(3)
    return maps[0], maps[1] if len(maps) == 3 else None, maps[-1]


@dataclass(frozen=True)
class Call:
    """What a backend needs to know about a call whose tensors fit together."""

    batch: int
    height: int
    width: int
    num_heads: int
    head_dim: int
    value_dim: int
    kernel_size: tuple[int, int]
    dilation: tuple[int, int]
    scale: float
    border: Border
    has_key: bool
    has_row_embedding: bool
    has_column_embedding: bool
    has_padding: bool
    dtype: torch.dtype
    device: torch.device
    requires_grad: bool

    @property
    def radius(self) -> tuple[int, int]:
        """Window pixels on each side of the query, before dilation."""
        return self.kernel_size[0] // 2, self.kernel_size[1] // 2

    @property
    def accumulation_dtype(self) -> torch.dtype:
        """The dtype of logits, softmax and sums: float32 at least."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32


def check_pair(where: str, name: str, value: int | tuple[int, int]) -> tuple[int, int]:
    """Return `value` as (vertical, horizontal), or raise ArgumentError unless both are integers >= 1."""
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    whole = all(isinstance(item, int) and not isinstance(item, bool) for item in pair)
    if len(pair) != 2 or not whole or min(pair) < 1:
        must = f"{name} must be an integer >= 1, or a pair (vertical, horizontal) of them"
        raise ArgumentError(message(where, must, repr(value)))
    return pair[0], pair[1]


def check_kernel_size(where: str, kernel_size: int | tuple[int, int]) -> tuple[int, int]:
    """Return the window's (height, width), or raise ArgumentError unless both are odd and >= 1."""
    pair = check_pair(where, "kernel_size", kernel_size)
    if pair[0] % 2 == 0 or pair[1] % 2 == 0:
        must = "kernel_size must be odd, because a window of even size has no centre pixel for its query"
        nearest = tuple(size + 1 - size % 2 for size in pair)
        hint = f"try {nearest[0] if nearest[0] == nearest[1] else nearest}."
        raise ArgumentError(message(where, must, repr(kernel_size), hint=hint))
    return pair


def check_border(where: str, border: str) -> Border:
    """Return `border`, or raise ArgumentError naming the known border rules."""
    if border not in BORDERS:
        known = " or ".join(repr(name) for name in BORDERS)
        hint = "'mask' leaves pixels outside the image out of the softmax; 'zeros' counts them as zeros."
        raise ArgumentError(message(where, f"border must be {known}", repr(border), hint=hint))
    return border


def check_call(
    where: str,
    inputs: Inputs,
    *,
    kernel_size: int | tuple[int, int],
    dilation: int | tuple[int, int] = 1,
    scale: float = 1.0,
    border: str = "mask",
) -> Call:
    """Check that the tensors and options of a call fit together.

    Raises:
        ArgumentError: kernel_size, dilation, scale or border has a value that cannot be used.
        ShapeError: shapes do not fit together; the message lists every misfit at once.
        DtypeError: dtypes or devices do not fit together.
    """
    window = check_kernel_size(where, kernel_size)
    steps = check_pair(where, "dilation", dilation)
    if not isinstance(scale, (int, float)) or not abs(scale) < float("inf"):
        raise ArgumentError(message(where, "scale must be a finite number", repr(scale)))
    rule = check_border(where, border)
    _check_shapes(where, inputs, window)
    _check_dtypes(where, inputs)
    query = inputs.query
    batch, height, width, num_heads, head_dim = query.shape
    return Call(
        batch=batch,
        height=height,
        width=width,
        num_heads=num_heads,
        head_dim=head_dim,
        value_dim=inputs.value.shape[-1],
        kernel_size=window,
        dilation=steps,
        scale=float(scale),
        border=rule,
        has_key=inputs.key is not None,
        has_row_embedding=inputs.row_embedding is not None,
        has_column_embedding=inputs.column_embedding is not None,
        has_padding=inputs.key_padding_mask is not None,
        dtype=query.dtype,
        device=query.device,
        requires_grad=torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs),
    )


def _check_shapes(where: str, inputs: Inputs, window: tuple[int, int]) -> None:
    query = inputs.query
    if query.dim() != 5:
        must = "query must have the 5 dimensions (batch, height, width, heads, head_dim)"
        hint = "split the channels into heads: x.unflatten(-1, (num_heads, head_dim))."
        raise ShapeError(message(where, must, _shape(query), hint=hint))
    problems = []
    if min(query.shape[1:]) < 1:
        problems.append(f"query: height, width, heads and head_dim must be >= 1; actual: {_shape(query)}")
    if inputs.key is not None and inputs.key.shape != query.shape:
        problems.append(f"key: expected {_shape(query)}, as query; actual: {_shape(inputs.key)}")
    value = inputs.value
    if value.dim() != 5 or value.shape[:-1] != query.shape[:-1] or value.shape[-1] < 1:
        expected = "(" + ", ".join(str(size) for size in query.shape[:-1]) + ", any value_dim >= 1)"
        problems.append(f"value: expected {expected}; actual: {_shape(value)}")
    problems.extend(_table_problems("row_embedding", inputs.row_embedding, query, window[0]))
    problems.extend(_table_problems("column_embedding", inputs.column_embedding, query, window[1]))
    padding = inputs.key_padding_mask
    if padding is not None and padding.shape != query.shape[:3]:
        problems.append(f"key_padding_mask: expected {tuple(query.shape[:3])}; actual: {_shape(padding)}")
    if problems:
        must = "the shapes of the inputs must fit together"
        raise ShapeError(message(where, must, f"query of shape {_shape(query)}", lines=problems))


def _table_problems(name: str, table: Tensor | None, query: Tensor, size: int) -> list[str]:
    if table is None:
        return []
    num_heads, head_dim = query.shape[-2:]
    if head_dim % 2 == 1:
        return [
            f"{name}: head_dim must be even, half for the rows and half for the columns; actual: {head_dim}"
        ]
    shared, per_head = (size, head_dim // 2), (num_heads, size, head_dim // 2)
    if tuple(table.shape) not in (shared, per_head):
        return [
            f"{name}: expected {shared} (shared by the heads) or {per_head} (per head); "
            f"actual: {_shape(table)}"
        ]
    return []


def _check_dtypes(where: str, inputs: Inputs) -> None:
    query, padding = inputs.query, inputs.key_padding_mask
    if query.dtype not in FLOATS:
        known = ", ".join(str(dtype) for dtype in FLOATS)
        raise DtypeError(message(where, f"query must have one of the dtypes {known}", query.dtype))
    if padding is not None and padding.dtype != torch.bool:
        hint = "True marks the pixels that are not part of the image."
        raise DtypeError(message(where, "key_padding_mask must be of dtype bool", padding.dtype, hint=hint))
    problems = []
    for name, tensor in zip(Inputs._fields, inputs, strict=True):
        if tensor is None:
            continue
        if tensor is not padding and tensor.dtype != query.dtype:
            problems.append(f"{name}: expected {query.dtype}, as query; actual: {tensor.dtype}")
        if tensor.device != query.device:
            problems.append(f"{name}: expected device {query.device}, as query; actual: {tensor.device}")
    if problems:
        must = "all inputs must have the dtype and device of query"
        got = f"query of {query.dtype} on {query.device}"
        hint = "convert them with .to(query), or call under torch.autocast."
        raise DtypeError(message(where, must, got, lines=problems, hint=hint))


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
