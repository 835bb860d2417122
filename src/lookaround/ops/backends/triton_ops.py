"""What torch is told about the GPU operators: their kernels, shapes, gradients, vmap, FLOPs.

`lookaround::triton_forward`, `triton_backward` and `triton_backward_packed` are registered once, by the first
call that asks for the backend.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lookaround.errors import UnsupportedCallError, message
from lookaround.ops.backends import triton_launch
from lookaround.ops.backends.triton_launch import Gradients, Options
from lookaround.ops.call import Call, Inputs, check_call, unpack
from lookaround.ops.cost import backward_flops, call_cost

Outputs = tuple[Tensor, ...]
Sizes = Sequence[int]

FORWARD = "lookaround::triton_forward"
BACKWARD = "lookaround::triton_backward"
PACKED = "lookaround::triton_backward_packed"

_TABLES = "Tensor? row_embedding, Tensor? column_embedding, Tensor? key_padding_mask"
_INPUTS = f"Tensor query, Tensor? key, Tensor value, {_TABLES}"
_OPTIONS = "int[2] kernel_size, int[2] dilation, float scale, str border"
_SAVED = "Tensor out, Tensor logsumexp"

_lock = threading.Lock()
_registered: list[bool] = []


def attend(*arguments: Any) -> Tensor:
    """Call the forward operator; takes the inputs and options that its schema names, returns the output.

    Compiled and exported graphs hold the operator itself. Elsewhere an autograd function stands before it,
    because torch.func transforms nothing that torch.library.register_autograd makes.
    """
    plain = torch.compiler.is_compiling() or not torch.is_grad_enabled()
    outputs: Outputs = _forward_op()(*arguments) if plain else _Attend.apply(*arguments)
    return outputs[0]


def attend_packed(projected: Tensor, *arguments: Any) -> Tensor:
    """Call the forward operator on the maps of one projection, whose gradient comes back as one tensor too.

    Args:
        projected: batch height width maps heads head_dim; the maps are query, key (or none) and value.
        arguments: the tables, the mask and the options, as in the operator's schema.
    """
    transformed = torch._C._are_functorch_transforms_active()
    if torch.compiler.is_compiling() or transformed or not torch.is_grad_enabled():
        return attend(*unpack(projected), *arguments)
    out: Tensor = _AttendPacked.apply(projected, *arguments)
    return out


def register() -> None:
    """Define the operators, once in a process."""
    with _lock:
        if not _registered:
            _define()
            _registered.append(True)


def _define() -> None:
    from torch.utils.flop_counter import register_flop_formula

    five, three = "(Tensor, Tensor, Tensor, Tensor, Tensor)", "(Tensor, Tensor, Tensor)"
    schemas: dict[str, tuple[str, Callable[..., Any], Callable[..., Any]]] = {
        FORWARD: (f"({_INPUTS}, {_OPTIONS}) -> (Tensor, Tensor)", _forward, _fake_forward),
        BACKWARD: (
            f"(Tensor grad_out, {_INPUTS}, {_SAVED}, {_OPTIONS}) -> {five}",
            _backward,
            _fake_backward,
        ),
        PACKED: (
            f"(Tensor grad_out, Tensor projected, {_TABLES}, {_SAVED}, {_OPTIONS}) -> {three}",
            _backward_packed,
            _fake_backward_packed,
        ),
    }
    for name, (schema, run, fake) in schemas.items():
        torch.library.define(name, schema)
        torch.library.impl(name, ("CUDA", "CPU"), run)
        torch.library.register_fake(name, fake)
    torch.library.register_autograd(FORWARD, _differentiate, setup_context=_Attend.setup_context)
    torch.library.register_autograd(BACKWARD, _Differentiate.backward)
    torch.library.register_vmap(FORWARD, _map_forward)
    torch.library.register_vmap(BACKWARD, _map_backward)
    register_flop_formula(torch.ops.lookaround.triton_forward)(_forward_flops)
    register_flop_formula(torch.ops.lookaround.triton_backward)(_backward_flops)
    register_flop_formula(torch.ops.lookaround.triton_backward_packed)(_packed_flops)


def _forward_op() -> Any:
    return torch.ops.lookaround.triton_forward.default


def _backward_op() -> Any:
    return torch.ops.lookaround.triton_backward.default


def _options(kernel_size: Sizes, dilation: Sizes, scale: float, border: Any) -> Options:
    return Options((kernel_size[0], kernel_size[1]), (dilation[0], dilation[1]), scale, border)


def _forward(*arguments: Any) -> Outputs:
    return triton_launch.forward(Inputs(*arguments[:6]), _options(*arguments[6:]))


def _backward(grad_out: Tensor, *arguments: Any) -> Outputs:
    inputs, (out, logsumexp) = Inputs(*arguments[:6]), arguments[6:8]
    key = None if inputs.key is None else _empty_like(inputs.key)
    gradients = Gradients(_empty_like(inputs.query), key, _empty_like(inputs.value))
    tables = triton_launch.backward(inputs, _options(*arguments[8:]), grad_out, out, logsumexp, gradients)
    query = inputs.query
    return tuple(query.new_empty(0) if given is None else given for given in (*gradients, *tables))


def _backward_packed(grad_out: Tensor, projected: Tensor, *arguments: Any) -> Outputs:
    inputs, (out, logsumexp) = Inputs(*unpack(projected), *arguments[:3]), arguments[3:5]
    packed = _empty_like(projected)
    gradients = Gradients(*unpack(packed))
    tables = triton_launch.backward(inputs, _options(*arguments[5:]), grad_out, out, logsumexp, gradients)
    return packed, *(projected.new_empty(0) if given is None else given for given in tables)


def _empty_like(tensor: Tensor) -> Tensor:
    """Get contiguous memory; the inputs' own strides may overlap."""
    return tensor.new_empty(tensor.shape)


def _fake_forward(query: Tensor, key: Tensor | None, value: Tensor, *rest: Any) -> Outputs:
    batch, height, width, heads, _ = query.shape
    logsumexp = query.new_empty((batch, heads, height, width), dtype=torch.float32)
    return query.new_empty(value.shape), logsumexp


def _fake_backward(grad_out: Tensor, *arguments: Any) -> Outputs:
    given = (arguments[0].new_empty(0 if one is None else one.shape) for one in arguments[:5])
    return tuple(given)


def _fake_backward_packed(grad_out: Tensor, projected: Tensor, *arguments: Any) -> Outputs:
    given = (projected.new_empty(0 if one is None else one.shape) for one in arguments[:2])
    return projected.new_empty(projected.shape), *given


class _Attend(torch.autograd.Function):
    """The forward operator, with its gradients."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> Outputs:
        outputs: Outputs = _forward_op()(*arguments)
        return outputs

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
        out, logsumexp = output
        ctx.mark_non_differentiable(logsumexp)
        ctx.save_for_backward(*inputs[:6], out, logsumexp)
        ctx.options = inputs[6:]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _wanted(ctx, _Differentiate.apply(gradients[0], *ctx.saved_tensors, *ctx.options))


class _Differentiate(torch.autograd.Function):
    """The backward operator, which has no gradients itself and says so."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> Outputs:
        outputs: Outputs = _backward_op()(*arguments)
        return outputs

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
        """Keep nothing: there is nothing to compute."""

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        must = "backend 'triton' gives first derivatives only"
        hint = "use backend='reference', which can be differentiated any number of times."
        raise UnsupportedCallError(message("local_attention", must, "a second derivative", hint=hint))


class _AttendPacked(torch.autograd.Function):
    """The forward operator on a projection, whose gradients autograd would stack: a copy of all three."""

    @staticmethod
    def forward(ctx: Any, projected: Tensor, *arguments: Any) -> Tensor:
        out: Tensor
        out, logsumexp = _forward_op()(*unpack(projected), *arguments)
        ctx.save_for_backward(projected, *arguments[:3], out, logsumexp)
        ctx.options = arguments[3:]
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        projected, rows, columns, *rest = ctx.saved_tensors
        arguments = (rows, columns, *rest, *ctx.options)
        if torch.is_grad_enabled():  # create_graph: only this way says so when it is differentiated again
            maps = unpack(projected)
            *to_maps, to_rows, to_columns = _Differentiate.apply(gradients[0], *maps, *arguments)
            packed = torch.stack([to for to, of in zip(to_maps, maps, strict=True) if of is not None], 3)
        else:
            backward = torch.ops.lookaround.triton_backward_packed.default
            packed, to_rows, to_columns = backward(gradients[0], projected, *arguments)
        nothing = (None,) * (1 + len(ctx.options))
        return packed, None if rows is None else to_rows, None if columns is None else to_columns, *nothing


def _differentiate(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
    return _wanted(ctx, _backward_op()(gradients[0], *ctx.saved_tensors, *ctx.options))


def _wanted(ctx: Any, gradients: Outputs) -> tuple[Tensor | None, ...]:
    """Keep the gradients that somebody needs; mask and options have none."""
    needed = ctx.needs_input_grad[:5]
    kept = (gradient if need else None for gradient, need in zip(gradients, needed, strict=True))
    return (*kept, None, None, None, None, None)


def _map_forward(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Outputs, tuple[int, ...]]:
    if any(isinstance(in_dims[place], int) for place in (3, 4)):
        return _map_one_by_one(_forward_op(), info, in_dims, arguments)
    folded = list(arguments)
    for place in (0, 1, 2, 5):  # what has a batch, of which the mapped dimension becomes a part
        if arguments[place] is not None:
            folded[place] = _fold(arguments[place], in_dims[place], info.batch_size)
    outputs = _forward_op()(*folded)
    parts = tuple(output.unflatten(0, (info.batch_size, -1)) for output in outputs)
    return parts, (0,) * len(parts)


def _fold(image: Tensor, dim: Any, samples: int) -> Tensor:
    mapped = image.movedim(dim, 0) if isinstance(dim, int) else image.expand(samples, *image.shape)
    return mapped.flatten(0, 1)


def _map_backward(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Outputs, tuple[int, ...]]:
    # A table has a gradient for each sample, even one that all samples share.
    return _map_one_by_one(_backward_op(), info, in_dims, arguments)


def _map_one_by_one(
    operator: Callable[..., Outputs], info: Any, in_dims: tuple[Any, ...], arguments: tuple[Any, ...]
) -> tuple[Outputs, tuple[int, ...]]:
    results = []
    for sample in range(info.batch_size):
        pairs = zip(arguments, in_dims, strict=True)
        results.append(
            operator(*(one.select(dim, sample) if isinstance(dim, int) else one for one, dim in pairs))
        )
    stacked = tuple(torch.stack(parts) for parts in zip(*results, strict=True))
    return stacked, (0,) * len(stacked)


def _forward_flops(*arguments: Any, **_: Any) -> int:
    return call_cost(_call_of(arguments[:6], arguments[6:10])).executed_flops


def _backward_flops(grad_out: Sizes, *arguments: Any, **_: Any) -> int:
    return backward_flops(_call_of(arguments[:6], arguments[8:12]))


def _packed_flops(grad_out: Sizes, projected: Sizes, *arguments: Any, **_: Any) -> int:
    *image, maps, heads, head_dim = projected
    one = (*image, heads, head_dim)
    inputs = (one, one if maps == 3 else None, one, *arguments[:3])
    return backward_flops(_call_of(inputs, arguments[5:9]))


def _call_of(shapes: Sequence[Sizes | None], options: Sequence[Any]) -> Call:
    """Describe a call of which the shapes are known."""
    dtypes = (*(torch.float32,) * 5, torch.bool)
    tensors: list[Any] = [
        None if shape is None else torch.empty(tuple(shape), dtype=dtype, device="meta")
        for shape, dtype in zip(shapes, dtypes, strict=True)
    ]
    return check_call("flops", Inputs(*tensors), **_options(*options)._asdict())
