"""The attention stem in training, without a map of the whole resolution in memory.

Batch norm needs the mean and variance of every output; the max-pooling behind it needs of each block the
largest, or the smallest where the norm turns it around. The native kernel gives both without writing the
outputs, and computes them again for the gradient.
"""

from typing import Any

import torch
from torch import Tensor, nn

from lookaround.nn.batch_norm import follow, trains_plainly
from lookaround.ops.block_attention import is_native


def attend_normalize_pool(
    bn: nn.Module,
    relu: nn.Module,
    pool: nn.MaxPool2d,
    pixels: Tensor,
    form: Tensor,
    maps: Tensor,
    block_size: int,
) -> Tensor | None:
    """Compute `pool(relu(bn(block_attention(pixels, form, maps))))` in training; None where it is not served.

    Returns:
        batch out_channels blocks_y blocks_x, in channels-last memory.
    """
    if not (trains_plainly(bn, relu) and _pools_blocks(pool, block_size)):
        return None
    count = pixels[..., 0].numel()
    if not is_native(pixels, form, maps, block_size) or bn.weight.dtype != torch.float32 or count < 2:
        return None
    out, mean, variance = _NormalizedPool.apply(pixels, form, maps, bn.weight, bn.bias, bn.eps, block_size)
    follow(bn, mean, variance, count)
    pooled: Tensor = out.permute(0, 3, 1, 2)
    return pooled


def _pools_blocks(pool: nn.MaxPool2d, size: int) -> bool:
    """Tell whether a pooling takes the largest output of each block, and nobody watches it."""
    geometry = pool.kernel_size, pool.stride, pool.padding, pool.dilation
    watched = pool._forward_hooks or pool._forward_pre_hooks
    return geometry == (size, size, 0, 1) and pool.ceil_mode and not pool.return_indices and not watched


class _NormalizedPool(torch.autograd.Function):
    """The native kernel with the gradients of the parameters."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, form: Tensor, maps: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        weight, bias, eps, ctx.block_size = rest
        largest, smallest, sums = torch.ops.lookaround.block_attention_extremes(
            pixels, form, maps, ctx.block_size
        )
        ctx.count = pixels[..., 0].numel()
        mean, square = sums.sum(0, dtype=torch.float64) / ctx.count
        variance = (square - mean * mean).clamp(min=0)
        inverse = (variance + eps).rsqrt()
        scale = weight * inverse.float()
        extreme = torch.where(scale >= 0, largest, smallest)
        out = torch.addcmul(bias - mean.float() * scale, extreme, scale).relu_()
        ctx.save_for_backward(pixels, form, maps, extreme, out, scale, mean.float(), inverse.float())
        moments = mean.float(), variance.float()
        ctx.mark_non_differentiable(*moments)
        return out, *moments

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        pixels, form, maps, extreme, out, scale, mean, inverse = ctx.saved_tensors
        gradient = gradients[0] * (out > 0)
        axes = (0, 1, 2)
        to_bias = gradient.sum(axes)
        to_weight = (gradient * (extreme - mean)).sum(axes) * inverse
        slope = -scale * to_weight * inverse / ctx.count
        offset = -scale * to_bias / ctx.count - slope * mean
        to_form, to_maps = torch.ops.lookaround.block_attention_backward_pooled(
            gradient, pixels, form, maps, scale, slope, offset, ctx.block_size
        )
        return None, to_form, to_maps, to_weight, to_bias, None, None
