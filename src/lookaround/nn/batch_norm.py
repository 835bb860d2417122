"""Batch norm and ReLU of a residual network in training, with less memory and fewer passes over it.

`normalize_then` keeps the input of a batch norm and its moments for the backward pass, but not the output:
what the next layer saved of it is computed again when it is asked for (Chen et al. 2016; for batch norm and
activation Rota Bulò et al. 2018, Pleiss et al. 2017). Where the native kernel does not serve, modules run.
"""

from collections.abc import Callable
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lookaround.ops.backends import cpu
from lookaround.ops.modes import is_plain_cpu_call


def normalize_then(bn: nn.Module, relu: nn.Module, layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Compute `layer(relu(bn(x)))`.

    Args:
        bn: a batch norm.
        relu: a ReLU.
        layer: what follows them.
        x: batch channels height width.
    """
    if not (trains_plainly(bn, relu) and _is_plain(x, bn.weight, bn.bias)):
        return layer(relu(bn(x)))
    moments = _observe(bn, x)
    y = _NormRelu.apply(x, None, *moments, bn.weight, bn.bias, bn.eps)
    remembered = _Remembered(y, (x.detach(), *moments, bn.weight.detach(), bn.bias.detach()), bn.eps)
    with torch.autograd.graph.saved_tensors_hooks(remembered.pack, _unpack):
        return layer(y)


def normalize_add(bn: nn.Module, relu: nn.Module, x: Tensor, added: Tensor) -> Tensor:
    """Compute `relu(bn(x) + added)`; `bn(x)` may be overwritten on the way."""
    if not (trains_plainly(bn, relu) and _is_plain(x, added, bn.weight, bn.bias)):
        summed: Tensor = bn(x)
        summed += added  # in place: these are a network's largest tensors
        return relu(summed)  # type: ignore[no-any-return]
    out: Tensor = _NormRelu.apply(x, added, *_observe(bn, x), bn.weight, bn.bias, bn.eps)
    return out


def trains_plainly(bn: nn.Module, relu: nn.Module) -> TypeGuard[nn.BatchNorm2d]:
    """Tell whether this is a training step of ordinary modules that nobody watches, and a kernel is there."""
    return (
        torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and type(bn) is nn.BatchNorm2d
        and type(relu) is nn.ReLU
        and bn.training
        and bn.affine
        and bn.track_running_stats
        and bn.momentum is not None
        and not _is_watched(bn)
        and not _is_watched(relu)
        and not _is_checkpointed()
        and cpu.is_available()
    )


def _is_checkpointed() -> bool:
    """Tell whether this is inside `torch.utils.checkpoint`, which does not see what other hooks keep."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)
    return hooks is not None and hooks[0].__module__ == "torch.utils.checkpoint"


def _is_plain(x: Tensor, *others: Tensor) -> bool:
    return (
        is_plain_cpu_call(x, *others, dtypes=(torch.float32,))
        and x.dim() == 4
        and x.shape[0] * x.shape[2] * x.shape[3] > 1
        and all(t.dim() == 1 or t.is_contiguous(memory_format=torch.channels_last) for t in (x, *others))
    )


def _is_watched(module: nn.Module) -> bool:
    """Tell whether somebody wants to see what goes through a module."""
    everywhere = torch.nn.modules.module
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or everywhere._global_forward_hooks
        or everywhere._global_forward_pre_hooks
        or everywhere._global_backward_hooks
        or everywhere._global_backward_pre_hooks
    )


def _pixels(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _observe(bn: nn.BatchNorm2d, x: Tensor) -> tuple[Tensor, Tensor]:
    """Give mean and variance of every channel, and let the running ones follow."""
    mean, variance = torch.ops.lookaround.batch_moments(_pixels(x.detach()))
    follow(bn, mean, variance, x.numel() // x.shape[1])
    return mean, variance


def follow(bn: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    """Let the running statistics follow those of a batch of `count` pixels, as `nn.BatchNorm2d` does."""
    assert bn.running_mean is not None
    assert bn.running_var is not None
    assert bn.num_batches_tracked is not None
    assert bn.momentum is not None
    with torch.no_grad():
        bn.num_batches_tracked.add_(1)
        bn.running_mean.lerp_(mean, bn.momentum)
        bn.running_var.lerp_(variance * (count / (count - 1)), bn.momentum)


class _Remembered:
    """Recognises a tensor that is about to be saved, and saves how it was made instead."""

    def __init__(self, y: Tensor, inputs: tuple[Tensor, ...], eps: float) -> None:
        self.address, self.shape, self.inputs, self.eps = y.data_ptr(), y.shape, inputs, eps

    def pack(self, tensor: Tensor) -> Any:
        is_view = tensor.data_ptr() == self.address and tensor.numel() == self.shape.numel()
        if not is_view or tensor.dtype != torch.float32:
            return tensor
        return self.inputs, self.eps, tensor.shape, tensor.stride()


def _unpack(packed: Any) -> Tensor:
    if isinstance(packed, Tensor):
        return packed
    inputs, eps, shape, strides = packed
    return _normalize(inputs[0], None, *inputs[1:], eps).as_strided(shape, strides)


def _normalize(x: Tensor, added: Tensor | None, *rest: Any) -> Tensor:
    added = None if added is None else _pixels(added)
    out: Tensor = torch.ops.lookaround.batch_normalize(_pixels(x), added, *rest)
    return out.permute(0, 3, 1, 2)


class _NormRelu(torch.autograd.Function):
    """The native kernel with its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, added: Tensor | None, *rest: Any) -> Tensor:
        *vectors, ctx.eps = rest  # mean, variance, weight, bias
        y = _normalize(x, added, *rest)
        ctx.save_for_backward(x, None if added is None else y, *vectors)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, y, *rest = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiate_traceably(ctx, gradients[0])
        gradient = _pixels(gradients[0].contiguous(memory_format=torch.channels_last))
        to_x, to_added, to_weight, to_bias = torch.ops.lookaround.batch_norm_backward(
            gradient, _pixels(x), None if y is None else _pixels(y), *rest, ctx.eps
        )
        to_added = None if y is None else to_added.permute(0, 3, 1, 2)
        return to_x.permute(0, 3, 1, 2), to_added, None, None, to_weight, to_bias, None


def _differentiate_traceably(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """Give the gradients by functions that have derivatives themselves, for create_graph."""
    x, y, _, _, weight, bias = ctx.saved_tensors
    out = F.batch_norm(x, None, None, weight, bias, training=True, eps=ctx.eps)
    gradient = gradient * ((out if y is None else y) > 0)
    given = {i: t for i, t in ((0, x), (4, weight), (5, bias)) if ctx.needs_input_grad[i]}
    found = torch.autograd.grad(out, list(given.values()), gradient, create_graph=True)
    by_place = dict(zip(given, found, strict=True)) | {1: None if y is None else gradient}
    return tuple(by_place.get(i) for i in range(7))
