"""What torch is told about the two native operators: shapes, gradients, vmap, FLOPs.

`lookaround::local_attention_forward` and `lookaround::local_attention_backward` come from the native library
(`csrc/registration.cpp`); `register` is called once, after it is loaded.
"""

from typing import Any

import torch
from torch import Tensor

from lookaround.ops.backends import operator_rules as rules
from lookaround.ops.backends.operator_rules import INPUTS, Mapped, Outputs, Sizes
from lookaround.ops.call import unpack
from lookaround.ops.cost import backward_flops, call_cost

FORWARD = "lookaround::local_attention_forward"
BACKWARD = "lookaround::local_attention_backward"


def attend(*arguments: Any) -> Tensor:
    """Call the forward operator; takes the inputs and options that its schema names, returns the output.

    Compiled and exported graphs hold the operator itself. Elsewhere an autograd function stands before it,
    because torch.func transforms nothing that torch.library.register_autograd makes.
    """
    plain = torch.compiler.is_compiling() or not torch.is_grad_enabled()
    outputs: Outputs = _ops()[0].default(*arguments) if plain else _Attend.apply(*arguments)
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


def attend_into(
    out: Tensor, projected: Tensor, *arguments: Any, bias: Tensor | None = None, relu: bool = False
) -> Tensor:
    """Call the forward operator without gradients, into `out`; returns the log-sum-exp."""
    batch, height, width, heads, _ = out.shape
    logsumexp = out.new_empty(batch, heads, height, width, dtype=torch.float32)
    operator = torch.ops.lookaround.local_attention_forward_into.default
    operator(*unpack(projected), *arguments, out, logsumexp, bias, relu)
    return logsumexp


def differentiate_packed(
    gradient: Tensor, projected: Tensor, logsumexp: Tensor, *arguments: Any
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Call the backward operator; returns the gradients of the projection in one piece and of the tables."""
    rows, columns, padding, *options = arguments
    operator = torch.ops.lookaround.local_attention_backward_packed.default
    packed, to_rows, to_columns = operator(
        gradient, *unpack(projected), rows, columns, padding, logsumexp, *options
    )
    return packed, None if rows is None else to_rows, None if columns is None else to_columns


def register() -> None:
    """Complete the operators that the native library has defined."""
    from torch.utils.flop_counter import register_flop_formula

    forward, backward = _ops()
    torch.library.register_fake(FORWARD, rules.fake_forward)
    torch.library.register_fake(BACKWARD, rules.fake_backward)
    torch.library.register_autograd(FORWARD, _differentiate, setup_context=_Attend.setup_context)
    torch.library.register_autograd(BACKWARD, _Differentiate.backward)
    torch.library.register_vmap(FORWARD, _map_forward)
    torch.library.register_vmap(BACKWARD, _map_backward)
    register_flop_formula(forward)(_forward_flops)
    register_flop_formula(backward)(_backward_flops)


def _ops() -> tuple[Any, Any]:
    return torch.ops.lookaround.local_attention_forward, torch.ops.lookaround.local_attention_backward


class _Attend(torch.autograd.Function):
    """The forward operator, with its gradients."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> Outputs:
        outputs: Outputs = _ops()[0].default(*arguments)
        return outputs

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
        logsumexp = output[1]
        ctx.mark_non_differentiable(logsumexp)
        ctx.save_for_backward(*inputs[:6], logsumexp)
        ctx.options = inputs[6:]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return rules.keep_needed(ctx, _Differentiate.apply(gradients[0], *ctx.saved_tensors, *ctx.options))


class _Differentiate(torch.autograd.Function):
    """The backward operator, which has no gradients itself and says so."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> Outputs:
        outputs: Outputs = _ops()[1].default(*arguments)
        return outputs

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
        """Keep nothing: there is nothing to compute."""

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        raise rules.refuse_second_derivative("cpu")


class _AttendPacked(torch.autograd.Function):
    """The forward operator on a projection, whose gradients autograd would stack: a copy of all three."""

    @staticmethod
    def forward(ctx: Any, projected: Tensor, *arguments: Any) -> Tensor:
        rows, columns, padding, *ctx.options = arguments
        out, logsumexp = _ops()[0].default(*unpack(projected), *arguments)
        ctx.save_for_backward(projected, rows, columns, padding, logsumexp)
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        projected, rows, columns, padding, logsumexp = ctx.saved_tensors
        arguments = (rows, columns, padding, *ctx.options)
        # With create_graph only the first way says so when a second derivative is asked for.
        differentiate = _differentiate_by_maps if torch.is_grad_enabled() else differentiate_packed
        found = differentiate(gradients[0], projected, logsumexp, *arguments)
        return *found, *(None,) * (1 + len(ctx.options))


def _differentiate_by_maps(
    gradient: Tensor, projected: Tensor, logsumexp: Tensor, *arguments: Any
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Do `differentiate_packed` through an autograd function."""
    maps = unpack(projected)
    rows, columns, padding, *options = arguments
    *to_maps, to_rows, to_columns = _Differentiate.apply(
        gradient, *maps, rows, columns, padding, logsumexp, *options
    )
    packed = torch.stack([to for to, of in zip(to_maps, maps, strict=True) if of is not None], 3)
    return packed, None if rows is None else to_rows, None if columns is None else to_columns


def _differentiate(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
    return rules.keep_needed(ctx, _ops()[1].default(gradients[0], *ctx.saved_tensors, *ctx.options))


def _map_forward(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Mapped:
    return rules.map_forward(_ops()[0].default, info, in_dims, arguments)


def _map_backward(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Mapped:
    return rules.map_one_by_one(_ops()[1].default, info, in_dims, arguments)


def _forward_flops(*arguments: Any, **_: Any) -> int:
    return call_cost(rules.call_of(arguments[:INPUTS], arguments[INPUTS:])).executed_flops


def _backward_flops(grad_out: Sizes, *arguments: Any, **_: Any) -> int:
    return backward_flops(rules.call_of(arguments[:INPUTS], arguments[INPUTS + 1 :]))
