"""Attention inside the blocks of an image, for the stem: few channels in, many out."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from lookaround.ops.backends import cpu
from lookaround.ops.modes import autocast_dtype, autocasts, is_known, is_plain_cpu_call

LARGEST_NATIVE_BLOCK = 8


def block_attention(
    pixels: Float[Tensor, "batch height width channels"],
    form: Float[Tensor, "heads channels channels"],
    maps: Float[Tensor, "places heads head_dim channels"],
    *,
    block_size: int,
    pooled: bool = False,
) -> Float[Tensor, "batch out_height out_width heads*head_dim"]:
    """Let every pixel attend to the pixels of its block.

    `out_i = Σ_j softmax_j(x_iᵀ form x_j) maps_j x_j` over the places j of the block. Blocks at the border
    leave out the pixels that do not exist.

    Args:
        pixels: the image, few channels, any strides.
        form: a bilinear form per head, `W_Qᵀ W_K`.
        maps: the value map of each place in the block, row by row.
        block_size: pixels a side of a block.
        pooled: whether to return the largest output of each block, instead of every pixel's.

    Returns:
        One vector per pixel, or per block if pooled; of the dtype of `pixels`, or of autocast. Softmax and
        sums run in float32 at least.

    Cost:
        `(heads·channels + 2·heads·head_dim) · block_size²` multiply-adds a pixel; on the CPU a native kernel
        holds one row of blocks at a time, elsewhere the logits and values of the whole image are in memory.

    Source:
        Ramachandran et al. 2019, section 3.2, with the two products of query and key folded into one form.
    """
    dtype = autocast_dtype(pixels) if autocasts(pixels.device.type) else pixels.dtype
    if dtype in (torch.bfloat16, torch.float16):
        floats = (pixels.float(), form.float(), maps.float())
        with torch.autocast(pixels.device.type, enabled=False):  # softmax and sums run in float32
            return block_attention(*floats, block_size=block_size, pooled=pooled).to(dtype)
    if is_native(pixels, form, maps, block_size):
        if torch.is_grad_enabled() and (form.requires_grad or maps.requires_grad) and not pooled:
            out: Tensor = _NativeBlocks.apply(pixels, form, maps, block_size)
            return out
        if not (torch.is_grad_enabled() and pooled):
            return _forward(pixels, form, maps, block_size, pooled)
    blocks = cut_blocks(pixels, block_size)
    values = torch.einsum("byxpi,phdi->byxhpd", blocks, maps)
    weights = block_weights(blocks, form, absent_places(pixels, block_size)).to(values.dtype)
    out = join_blocks((weights @ values).transpose(-2, -3).flatten(-2), block_size)
    out = crop(out, pixels.shape[1], pixels.shape[2])
    return _pool(out, block_size) if pooled else out


def block_weights(
    blocks: Float[Tensor, "batch blocks_y blocks_x places channels"],
    form: Float[Tensor, "heads channels channels"],
    absent: Bool[Tensor, "1 blocks_y blocks_x 1 1 places"] | None = None,
) -> Float[Tensor, "batch blocks_y blocks_x heads places places"]:
    """Compute where each place of a block looks."""
    logits = torch.einsum("byxpi,hij->byxhpj", blocks, form) @ blocks.transpose(-1, -2)[:, :, :, None]
    if absent is not None:
        logits = logits.masked_fill(absent, -torch.inf)
    return logits.softmax(-1)


def cut_blocks(
    pixels: Shaped[Tensor, "batch height width channels"], size: int
) -> Shaped[Tensor, "batch blocks_y blocks_x places channels"]:
    """Cut an image into blocks, zeros beyond its border."""
    missing_y, missing_x = ((side + size - 1) // size * size - side for side in pixels.shape[1:3])
    pixels = F.pad(pixels, (0, 0, 0, missing_x, 0, missing_y))
    # unfold cuts without asking whether a symbolic size is divisible, as unflatten would.
    blocks: Tensor = pixels.unfold(1, size, size).unfold(2, size, size)
    return blocks.permute(0, 1, 2, 4, 5, 3).flatten(3, 4)


def join_blocks(blocks: Tensor, size: int) -> Tensor:
    """Undo `cut_blocks`, but for what it added at the border."""
    pixels: Tensor = blocks.unflatten(3, (size, size)).permute(0, 1, 3, 2, 4, 5)
    return pixels.flatten(3, 4).flatten(1, 2)


def crop(pixels: Tensor, height: int, width: int) -> Tensor:
    """Take as many rows and columns: batch height width channels."""
    if is_known(height) and is_known(width):
        return pixels[:, :height, :width]
    # Negative padding copies, where a view would ask whether anything is cut off.
    return F.pad(pixels, (0, 0, 0, width - pixels.shape[2], 0, height - pixels.shape[1]))


def absent_places(pixels: Tensor, size: int) -> Tensor | None:
    """Tell which places of the blocks lie beyond the image's border: 1 blocks_y blocks_x 1 1 places."""
    height, width = pixels.shape[1:3]
    if is_known(height) and is_known(width) and height % size == 0 and width % size == 0:
        return None
    present = torch.ones(1, height, width, 1, dtype=torch.bool, device=pixels.device)
    return ~cut_blocks(present, size).flatten(-2)[:, :, :, None, None]


def _pool(out: Tensor, size: int) -> Tensor:
    return F.max_pool2d(out.permute(0, 3, 1, 2), size, ceil_mode=True).permute(0, 2, 3, 1)


def is_native(pixels: Tensor, form: Tensor, maps: Tensor, block_size: int) -> bool:
    """Tell whether the native kernel can run: eager float32 on the CPU, no gradient of the pixels."""
    return (
        is_plain_cpu_call(pixels, form, maps, dtypes=(torch.float32,))
        and block_size <= LARGEST_NATIVE_BLOCK
        and not (pixels.requires_grad and torch.is_grad_enabled())
        and cpu.is_available()
    )


def _forward(pixels: Tensor, form: Tensor, maps: Tensor, block_size: int, pooled: bool) -> Tensor:
    out: Tensor = torch.ops.lookaround.block_attention_forward(pixels, form, maps, block_size, pooled)
    return out


class _NativeBlocks(torch.autograd.Function):
    """The native kernel with the gradients of its parameters; backward computes the weights again."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, form: Tensor, maps: Tensor, block_size: int) -> Tensor:
        ctx.save_for_backward(pixels, form, maps)
        ctx.block_size = block_size
        return _forward(pixels, form, maps, block_size, False)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        to_form, to_maps = torch.ops.lookaround.block_attention_backward(
            gradients[0], *ctx.saved_tensors, ctx.block_size
        )
        return None, to_form, to_maps, None
