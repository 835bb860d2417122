"""FLOPs of any network, and of the attention layers in it, without computing anything."""

import copy
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy

from lookaround.errors import ArgumentError, message
from lookaround.nn.local_attention import LocalAttention2d
from lookaround.nn.stem import AttentionStem
from lookaround.ops.call import Inputs, check_call, check_pair
from lookaround.ops.cost import CallCost, call_cost

Network = TypeVar("Network", bound=nn.Module)


def count_flops(model: nn.Module, image_size: int | tuple[int, int]) -> int:
    """Count what a network executes for one image: products alone, two FLOPs for each multiply-add.

    Convolutions, matrix products and local attention are counted, by PyTorch's own formulas and that of the
    operator; norms, activations and poolings are not.

    Args:
        model: any network that takes a batch of images; it is not changed, and runs in eval mode.
        image_size: height and width in pixels, an integer or a pair. The channels are those that its first
            convolution or attention takes.

    Raises:
        ArgumentError: image_size is not positive, or the network cannot take such an image.

    Example:
        >>> count_flops(nn.Conv2d(3, 8, 1), (4, 5))
        960
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton

    height, width = check_pair("count_flops", "image_size", image_size)
    outlined = outline(model)
    spatial = (m for m in model.modules() if isinstance(m, (_ConvNd, LocalAttention2d, AttentionStem)))
    channels = next((module.in_channels for module in spatial), 3)
    image = torch.empty(1, channels, height, width, device="meta", dtype=_dtype(model))
    attention: list[int] = []
    for module in outlined.modules():
        if isinstance(module, LocalAttention2d):
            module.register_forward_hook(partial(_note, attention))
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            outlined(image)
    except (RuntimeError, TypeError, ValueError, IndexError, AssertionError) as error:
        must = "the model must take a batch of one image"
        got = f"{channels}x{height}x{width}, which it refuses"
        lines = [f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"]
        hint = "name another image_size, or none: FLOPs are then not counted."
        raise ArgumentError(message("count_flops", must, got, lines=lines, hint=hint)) from error
    return int(counter.get_total_flops()) + sum(attention)


def _dtype(model: nn.Module) -> torch.dtype:
    floating = (p.dtype for p in model.parameters() if p.is_floating_point())
    return next(floating, torch.get_default_dtype())


def _note(flops: list[int], module: LocalAttention2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    flops.append(attention_cost(module, inputs[0]).executed_flops)


def outline(model: Network) -> Network:
    """Copy a network without its numbers, in eval mode, with attention that only tells its shape.

    The operator itself is costed by formula; running it would take time, and a backend for this device.
    """
    memo: dict[int, Tensor] = {}
    for module in model.modules():
        for held in (module._parameters, module._buffers, vars(module)):
            tensors = (tensor for tensor in held.values() if isinstance(tensor, Tensor))
            memo |= {id(tensor): _without_numbers(tensor) for tensor in tensors if not is_lazy(tensor)}
    copied = copy.deepcopy(model, memo)
    copied.eval()
    for module in copied.modules():
        if isinstance(module, LocalAttention2d):
            module.forward = partial(_outline, module)  # type: ignore[method-assign]
    return copied


def _without_numbers(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta", requires_grad=False)
    return nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty


def _outline(module: LocalAttention2d, x: Tensor) -> Tensor:
    """Stand for a layer's forward by its projection and the shape of its output."""
    module.projection(x.permute(0, 2, 3, 1))
    sizes = zip(x.shape[-2:], module.stride, strict=True)
    return x.new_empty(x.shape[0], module.out_channels, *(-(-size // step) for size, step in sizes))


def attention_cost(module: LocalAttention2d, x: Tensor) -> CallCost:
    """Count what the attention of a layer costs beside its projection, for x batch channels height width."""
    batch, _, height, width = x.shape  # attention runs at full resolution, whatever the stride
    query = x.new_empty(batch, height, width, module.num_heads, module.head_dim)
    key = query if module.content else None
    inputs = Inputs(query, key, query, module.row_embedding, module.column_embedding, None)
    return call_cost(check_call("count_flops", inputs, kernel_size=module.kernel_size))
