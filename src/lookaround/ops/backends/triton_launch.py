"""From tensors to launches of the GPU kernels: memory for the results, strides, tiles and the grid."""

# mypy: disable-error-code="import-untyped"

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from lookaround.ops.backends.triton_backward_kernels import key_kernel, query_kernel
from lookaround.ops.backends.triton_configs import Kind, Tiles, choose_tiles, next_power_of_two
from lookaround.ops.backends.triton_kernels import forward_kernel
from lookaround.ops.call import Border, Inputs

INT32_ELEMENTS = 2**31 - 2**20  # offsets of a tile's halo, which lie outside of the image, have room as well
PROGRAMS_WANTED = 2048  # some for each processor of a large GPU; fewer heads a program give more programs


class Options(NamedTuple):
    """What a call says beside its tensors."""

    kernel_size: tuple[int, int]
    dilation: tuple[int, int]
    scale: float
    border: Border


@dataclass(frozen=True)
class Launch:
    """One kernel with everything that it is called with."""

    kernel: Any
    tiles: Tiles
    programs: int
    tensors: dict[str, Tensor | None]
    numbers: dict[str, int | float]
    constants: dict[str, Any]

    def compiler_options(self) -> dict[str, int]:
        """Give what the compiler is told beside the constants."""
        options = {"num_warps": self.tiles.warps, "num_stages": 1}
        if self.tiles.registers is not None and torch.version.hip is None:
            options["maxnreg"] = self.tiles.registers
        return options

    def run(self) -> None:
        """Launch on the current stream of the tensors' device."""
        if self.programs == 0:
            return
        arguments = {**self.tensors, **self.numbers, **self.constants}
        device = next(tensor.device for tensor in self.tensors.values() if tensor is not None)
        if device.type != "cuda":  # the interpreter
            self.kernel[(self.programs,)](**arguments)
            return
        with torch.cuda.device(device):
            self.kernel[(self.programs,)](**arguments, **self.compiler_options())


class Gradients(NamedTuple):
    """Where gradients go: memory of the shapes of the inputs; the tables' come in parts."""

    query: Tensor
    key: Tensor | None
    value: Tensor


def forward(inputs: Inputs, options: Options) -> tuple[Tensor, Tensor]:
    """Compute the output and its log-sum-exp (base 2, float32, batch heads height width)."""
    query, value = inputs.query, inputs.value
    batch, height, width, heads, _ = query.shape
    out = query.new_empty(value.shape)
    logsumexp = query.new_empty((batch, heads, height, width), dtype=torch.float32)
    plan_forward(inputs, options, out, logsumexp).run()
    return out, logsumexp


def backward(
    inputs: Inputs, options: Options, grad_out: Tensor, out: Tensor, logsumexp: Tensor, gradients: Gradients
) -> tuple[Tensor | None, Tensor | None]:
    """Fill the gradients of query, key and value, and return those of the two tables."""
    delta = torch.empty_like(logsumexp)
    parts = _table_parts(inputs, options)
    first = plan_query(inputs, options, (grad_out, out, logsumexp, delta), gradients.query, parts)
    first.run()
    plan_key(inputs, options, (grad_out, logsumexp, delta), gradients).run()
    tables = (inputs.row_embedding, inputs.column_embedding)
    rows, columns = (_add_parts(part, table) for part, table in zip(parts, tables, strict=True))
    return rows, columns


def plan_forward(inputs: Inputs, options: Options, out: Tensor, logsumexp: Tensor) -> Launch:
    """Prepare the forward kernel."""
    plan = _plan("forward", inputs, options, [*inputs[:3]])
    factor = plan.numbers["factor"]
    plan.tensors.update(p_out=out, p_logsumexp=logsumexp)
    plan.numbers["bound"] = 1e38 / max(factor, 1.0)
    plan.constants["ZEROS"] = options.border == "zeros"
    return plan


def plan_query(
    inputs: Inputs,
    options: Options,
    saved: tuple[Tensor, Tensor, Tensor, Tensor],
    to_query: Tensor,
    parts: tuple[Tensor | None, Tensor | None],
) -> Launch:
    """Prepare the kernel that differentiates for queries and tables."""
    grad_out, out, logsumexp, delta = saved
    plan = _plan("query", inputs, options, [*inputs[:3], grad_out, to_query])
    plan.tensors.update(p_grad=grad_out, p_out=out, p_logsumexp=logsumexp, p_delta=delta)
    plan.tensors.update(p_to_query=to_query, p_to_rows=parts[0], p_to_columns=parts[1])
    align = plan.constants["ALIGN"]
    plan.numbers.update(_strides("grad", grad_out, align), scale=options.scale)
    plan.numbers.update(_strides("to", to_query, align, last=False))
    plan.constants["ZEROS"] = options.border == "zeros"
    return plan


def plan_key(
    inputs: Inputs, options: Options, saved: tuple[Tensor, Tensor, Tensor], gradients: Gradients
) -> Launch:
    """Prepare the kernel that differentiates for keys and values."""
    grad_out, logsumexp, delta = saved
    plan = _plan("key", inputs, options, [*inputs[:3], grad_out, gradients.key, gradients.value])
    plan.tensors.update(p_grad=grad_out, p_logsumexp=logsumexp, p_delta=delta)
    plan.tensors.update(p_to_key=gradients.key, p_to_value=gradients.value)
    align = plan.constants["ALIGN"]
    plan.numbers.update(_strides("grad", grad_out, align), scale=options.scale)
    plan.numbers.update(_strides("to_key", gradients.key, align, last=False))
    plan.numbers.update(_strides("to_value", gradients.value, align, last=False))
    return plan


def count_tiles(kind: Kind, inputs: Inputs, options: Options) -> tuple[int, int, int]:
    """Count the tiles of one phase, vertically and horizontally, and all tiles of all phases and images."""
    batch, height, width = inputs.query.shape[:3]
    tiles = _tiles(kind, inputs, options)
    step_y, step_x = options.dilation
    n_tiles_y = math.ceil(math.ceil(height / step_y) / tiles.height)
    n_tiles_x = math.ceil(math.ceil(width / step_x) / tiles.width)
    return n_tiles_y, n_tiles_x, batch * n_tiles_y * n_tiles_x * step_y * step_x


def _tiles(kind: Kind, inputs: Inputs, options: Options) -> Tiles:
    vector = max(inputs.query.shape[-1], inputs.value.shape[-1])
    return choose_tiles(kind, options.kernel_size, vector, inputs.query.element_size())


def _plan(kind: Kind, inputs: Inputs, options: Options, strided: Sequence[Tensor | None]) -> Launch:
    """Prepare what all kernels share; `strided` are the tensors whose strides they are told."""
    query, key, value, rows, columns, padding = inputs
    align = _alignment(strided)
    tiles = _tiles(kind, inputs, options)
    n_tiles_y, n_tiles_x, programs = count_tiles(kind, inputs, options)
    heads = query.shape[3]
    n_heads_each = max(1, min(heads, programs * heads // PROGRAMS_WANTED))
    n_groups = math.ceil(heads / n_heads_each)
    numbers: dict[str, int | float] = {
        **_strides("query", query, align),
        **_strides("key", key, align),
        **_strides("value", value, align),
        "rows_h": _head_stride(rows),
        "columns_h": _head_stride(columns),
        "height": query.shape[1],
        "width": query.shape[2],
        "n_heads": heads,
        "n_heads_each": n_heads_each,
        "n_groups": n_groups,
        "n_tiles_y": n_tiles_y,
        "n_tiles_x": n_tiles_x,
        "dilation_y": options.dilation[0],
        "dilation_x": options.dilation[1],
        "factor": abs(options.scale) * math.log2(math.e) if options.scale else 1.0,
    }
    tensors = {
        "p_query": query,
        "p_key": key,
        "p_value": value,
        "p_rows": None if rows is None else rows.contiguous(),
        "p_columns": None if columns is None else columns.contiguous(),
        "p_padding": None if padding is None else padding.contiguous(),
    }
    constants = _constants(inputs, options, tiles) | {"ALIGN": align, "OFFSETS": _offset_type(strided)}
    kernel = {"forward": forward_kernel, "query": query_kernel, "key": key_kernel}[kind]
    return Launch(kernel, tiles, programs * n_groups, tensors, numbers, constants)


def _constants(inputs: Inputs, options: Options, tiles: Tiles) -> dict[str, Any]:
    """Give what kernels are compiled for."""
    query, key, value, rows, columns, padding = inputs
    kernel_y, kernel_x = options.kernel_size
    interpreted = query.device.type == "cpu"
    return {
        "STRIPS": tiles.strips,
        "BLOCK_Y": tiles.block_y,
        "BLOCK_X": tiles.block_x,
        "LINES": tiles.lines,
        "WIDTH": next_power_of_two(tiles.block_x + kernel_x - 1),
        "DIM": query.shape[-1],
        "DIM_": max(16, next_power_of_two(query.shape[-1])),
        "VALUE_DIM": value.shape[-1],
        "VALUE_DIM_": max(16, next_power_of_two(value.shape[-1])),
        "KERNEL_Y": kernel_y,
        "KERNEL_X": kernel_x,
        "ENTRIES": max(16, next_power_of_two(kernel_y + kernel_x)),
        "HAS_KEY": key is not None,
        "HAS_ROWS": rows is not None,
        "HAS_COLUMNS": columns is not None,
        "HAS_PADDING": padding is not None,
        "SIGN": _sign(options.scale),
        "PRECISION": "tf32" if _allows_tf32() else "ieee",
        "UPCAST": interpreted and query.dtype == torch.bfloat16,
    }


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)


def _allows_tf32() -> bool:
    """Tell whether torch may round the factors of float32 products."""
    return bool(torch.backends.cuda.matmul.fp32_precision == "tf32")


def _strides(name: str, tensor: Tensor | None, align: int, last: bool = True) -> dict[str, int]:
    """Name the strides of a tensor, in units of `align`; a dimension of size 1 has none."""
    if tensor is None:
        found = [0, 0, 0, 0, 0]
    else:
        found = [0 if n == 1 else s for n, s in zip(tensor.shape, tensor.stride(), strict=True)]
        found[:4] = [stride // align for stride in found[:4]]
    named = {f"{name}_{dim}": stride for dim, stride in zip("byxhd", found, strict=True)}
    if not last:
        del named[f"{name}_d"]
    return named


def _head_stride(table: Tensor | None) -> int:
    return 0 if table is None or table.dim() == 2 else table.shape[1] * table.shape[2]


def _alignment(tensors: Sequence[Tensor | None]) -> int:
    """Give the largest power of two, up to 16 bytes, that divides all strides but those along vectors."""
    given = [tensor for tensor in tensors if tensor is not None]
    align = 16 // given[0].element_size()
    for tensor in given:
        for size, stride in list(zip(tensor.shape, tensor.stride(), strict=True))[:4]:
            if size > 1:
                align = math.gcd(align, stride)
    return align


def _offset_type(tensors: Sequence[Tensor | None]) -> Any:
    """Choose the type of offsets inside one image: 32 bits where they suffice."""
    reach = 0
    for tensor in tensors:
        if tensor is not None:
            sides = list(zip(tensor.shape, tensor.stride(), strict=True))[1:]
            reach = max(
                reach, sum((size - 1) * stride for size, stride in sides), math.prod(tensor.shape[1:])
            )
    return tl.int64 if reach > INT32_ELEMENTS else tl.int32


def _table_parts(inputs: Inputs, options: Options) -> tuple[Tensor | None, Tensor | None]:
    """Get memory for each tile's share of the tables' gradients: tiles heads kernel head_dim/2."""
    _, _, parts = count_tiles("query", inputs, options)
    return tuple(_parts_of(table, inputs.query, parts) for table in inputs[3:5])  # type: ignore[return-value]


def _parts_of(table: Tensor | None, query: Tensor, parts: int) -> Tensor | None:
    if table is None:
        return None
    return query.new_empty((parts, query.shape[3], *table.shape[-2:]), dtype=torch.float32)


def _add_parts(parts: Tensor | None, table: Tensor | None) -> Tensor | None:
    if parts is None or table is None:
        return None
    return parts.sum((0, 1) if table.dim() == 2 else 0).to(table.dtype)
