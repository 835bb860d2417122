"""What torch is told about the GPU operators: their kernels, shapes, gradients, vmap, FLOPs.

`lookaround::triton_forward`, `triton_backward` and `triton_backward_packed` are registered once, by the first
call that asks for the backend.
"""

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lookaround.ops.backends import operator_rules as rules
from lookaround.ops.backends import triton_launch
from lookaround.ops.backends.operator_rules import INPUTS, Mapped, Outputs, Sizes
from lookaround.ops.backends.triton_launch import Gradients, Options
from lookaround.ops.call import Inputs, unpack
from lookaround.ops.cost import backward_flops, call_cost

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
        FORWARD: (f"({_INPUTS}, {_OPTIONS}) -> (Tensor, Tensor)", _forward, rules.fake_forward),
        BACKWARD: (
            f"(Tensor grad_out, {_INPUTS}, {_SAVED}, {_OPTIONS}) -> {five}",
            _backward,
            rules.fake_backward,
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
        return rules.keep_needed(ctx, _Differentiate.apply(gradients[0], *ctx.saved_tensors, *ctx.options))


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
        raise rules.refuse_second_derivative("triton")


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
    return rules.keep_needed(ctx, _backward_op()(gradients[0], *ctx.saved_tensors, *ctx.options))


def _map_forward(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Mapped:
    return rules.map_forward(_forward_op(), info, in_dims, arguments)


def _map_backward(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Mapped:
    return rules.map_one_by_one(_backward_op(), info, in_dims, arguments)


def _forward_flops(*arguments: Any, **_: Any) -> int:
    return call_cost(rules.call_of(arguments[:INPUTS], arguments[INPUTS : INPUTS + 4])).executed_flops


def _backward_flops(grad_out: Sizes, *arguments: Any, **_: Any) -> int:
    return backward_flops(rules.call_of(arguments[:INPUTS], arguments[INPUTS + 2 : INPUTS + 6]))


def _packed_flops(grad_out: Sizes, projected: Sizes, *arguments: Any, **_: Any) -> int:
    *image, maps, heads, head_dim = projected
    one = (*image, heads, head_dim)
    inputs = (one, one if maps == 3 else None, one, *arguments[:3])
    return backward_flops(rules.call_of(inputs, arguments[5:9]))
