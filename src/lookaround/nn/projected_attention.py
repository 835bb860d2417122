"""Projection and attention together, a few images at a time.

The projection of a batch has three times the channels of its input. Written down whole, it leaves the caches
before the attention reads it, and autograd keeps it until the backward pass. Here some images are projected
and attended to before the next ones, and where that is cheap the backward pass projects anew (as gradient
checkpointing does, Chen et al. 2016), which saves the largest tensors of the layer.

The native kernel works on channels of pixels. So the projection of wide images is computed the other way
round, weight times pixels, and comes out as channels of pixels at no cost.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lookaround.nn.pointwise import onednn_serves, pointwise_gradients, pointwise_linear
from lookaround.ops import dispatch, local_attention_packed
from lookaround.ops.backends import cpu
from lookaround.ops.call import Inputs, check_call
from lookaround.ops.local_attention import WindowOptions

CHUNK_BYTES = 4 << 20  # of projected pixels: near the caches, yet long enough for the matrix product
WIDE = 32  # pixels in a row from which on the kernel gains by channels of pixels
# The backward pass projects anew where that saves much and costs little: its cost for each byte grows with
# the input channels.
ANEW_BYTES, ANEW_CHANNELS = 2 << 20, 128  # of one projected image at least; at most


@dataclass(frozen=True)
class Layout:
    """What a layer is beside its parameters."""

    num_heads: int
    head_dim: int
    stride: tuple[int, int]
    backend: str
    options: WindowOptions

    def split(self, projected: Tensor) -> Tensor:
        """Give the projection's channels their meaning: batch height width maps heads head_dim."""
        maps: Tensor = projected.unflatten(-1, (-1, self.num_heads, self.head_dim))
        return maps


@dataclass(frozen=True)
class Parameters:
    """The tensors of a layer."""

    weight: Tensor  # maps·heads·head_dim in_channels
    bias: Tensor | None
    row_embedding: Tensor | None
    column_embedding: Tensor | None

    def present(self) -> list[Tensor]:
        """List those that there are."""
        tensors = (self.weight, self.bias, self.row_embedding, self.column_embedding)
        return [tensor for tensor in tensors if tensor is not None]


@dataclass(frozen=True)
class Finish:
    """What follows the attention in inference: a constant for each channel is added, then perhaps a ReLU."""

    shift: Tensor  # out_channels
    relu: bool


def attend_to_projection(
    pixels: Tensor,
    parameters: Parameters,
    key_padding_mask: Tensor | None,
    layout: Layout,
    finish: Finish | None = None,
) -> Tensor:
    """Project, attend, average over the stride, and finish.

    Args:
        pixels: batch height width in_channels.
        parameters: of the layer.
        key_padding_mask: batch height width, or None.
        layout: of the layer.
        finish: what follows; without gradients.

    Returns:
        batch out_channels out_height out_width, in channels-last memory.
    """
    tensors = (pixels, *parameters.present())
    if _is_native(tensors, parameters, key_padding_mask, layout):
        if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
            return _forward(pixels, parameters, key_padding_mask, layout, finish=finish)
        if finish is None:
            p = parameters
            tables = p.row_embedding, p.column_embedding
            attended: Tensor = _ProjectAndAttend.apply(
                pixels, p.weight, p.bias, *tables, key_padding_mask, layout
            )
            return attended
    out = _attend_whole(pixels, parameters, key_padding_mask, layout)
    if finish is None:
        return out
    out = out + finish.shift[:, None, None]
    return out.relu() if finish.relu else out


def average(out: Tensor, stride: tuple[int, int], key_padding_mask: Tensor | None = None) -> Tensor:
    """Average the pixels under each stride, of batch channels height width; those that are no padding."""
    if stride == (1, 1):
        return out
    pooled = F.avg_pool2d(out, stride, stride, ceil_mode=True, count_include_pad=False)
    if key_padding_mask is None:
        return pooled
    return pooled / _presence(key_padding_mask, out.dtype, stride)


def _presence(mask: Tensor, dtype: torch.dtype, stride: tuple[int, int]) -> Tensor:
    """Give the share of pixels under each stride that are no padding: batch 1 out_height out_width."""
    present = (~mask).to(dtype)[:, None]
    share = F.avg_pool2d(present, stride, stride, ceil_mode=True, count_include_pad=False)
    # A window that is all padding is 0 and stays so; 0 / 0 would poison the gradients.
    return share.masked_fill(share == 0, 1.0)


def _attend_whole(pixels: Tensor, p: Parameters, mask: Tensor | None, layout: Layout) -> Tensor:
    """Compute it as its definition says, in tensors that autograd and compilers see."""
    out = local_attention_packed(
        layout.split(pointwise_linear(pixels, p.weight, p.bias)),
        p.row_embedding,
        p.column_embedding,
        mask,
        backend=layout.backend,
        **layout.options,
    )
    return average(out.flatten(-2).permute(0, 3, 1, 2), layout.stride, mask)


def _is_native(tensors: tuple[Tensor, ...], p: Parameters, mask: Tensor | None, layout: Layout) -> bool:
    """Tell whether the native kernel serves the call, in eager mode; raise as the operator would."""
    if not onednn_serves(*tensors) or len({tensor.dtype for tensor in tensors}) > 1:
        return False
    pixels = tensors[0]
    # Checked on maps that take no memory.
    like = pixels.new_empty(()).expand(*pixels.shape[:3], layout.num_heads, layout.head_dim)
    key = like if p.weight.shape[0] == 3 * layout.num_heads * layout.head_dim else None
    inputs = Inputs(like, key, like, p.row_embedding, p.column_embedding, mask)
    call = check_call("LocalAttention2d", inputs, **layout.options)
    return dispatch.choose_backend("LocalAttention2d", layout.backend, call) is cpu.BACKEND


def _projects_anew(pixels: Tensor, weight: Tensor) -> bool:
    """Tell whether the backward pass computes the projection again instead of keeping it."""
    return pixels.shape[-1] <= ANEW_CHANNELS and _projected_bytes(pixels, weight) >= ANEW_BYTES


def _projected_bytes(pixels: Tensor, weight: Tensor) -> int:
    """Give the size of the projection of one image."""
    return pixels.shape[1] * pixels.shape[2] * weight.shape[0] * pixels.element_size()


def _parts(pixels: Tensor, weight: Tensor, layout: Layout) -> Iterator[slice]:
    """Cut the batch so that each part has work for every thread and stays near the caches."""
    images, bytes_each = len(pixels), _projected_bytes(pixels, weight)
    for_threads = -(-2 * torch.get_num_threads() // layout.num_heads)
    count = -(-images // max(CHUNK_BYTES // bytes_each, for_threads, 1))
    for part in range(count):  # of nearly the same size
        yield slice(images * part // count, images * (part + 1) // count)


def _project(pixels: Tensor, p: Parameters, layout: Layout) -> Tensor:
    """Give the maps: batch height width maps heads head_dim, of wide images as channels of pixels."""
    if pixels.shape[2] < WIDE:
        return layout.split(pointwise_linear(pixels, p.weight, p.bias))
    flat = pixels.reshape(-1, pixels.shape[-1])
    projected = pointwise_linear(p.weight, flat)
    if p.bias is not None:
        projected += p.bias[:, None]
    maps = projected.view(-1, layout.num_heads, layout.head_dim, *pixels.shape[:3])
    return maps.permute(3, 4, 5, 0, 1, 2)


def _forward(
    pixels: Tensor,
    p: Parameters,
    mask: Tensor | None,
    layout: Layout,
    *,
    finish: Finish | None = None,
    kept: list[Tensor] | None = None,
) -> Tensor:
    """Write the output part by part.

    The backward pass needs the log-sum-exp of every query, and perhaps the projection: they go to `kept`.
    """
    images, height, width, _ = pixels.shape
    size = [-(-side // step) for side, step in zip((height, width), layout.stride, strict=True)]
    out = pixels.new_empty(images, *size, layout.num_heads, layout.head_dim)
    pools = layout.stride != (1, 1)
    shift = None if finish is None else finish.shift.float()
    for part in _parts(pixels, p.weight, layout):
        projected = _project(pixels[part], p, layout)
        padding = None if mask is None else mask[part]
        arguments = (p.row_embedding, p.column_embedding, padding, layout.options)
        to = pixels.new_empty(projected.shape[:3] + out.shape[-2:]) if pools else out[part]
        # The ReLU comes after the average.
        relu = finish is not None and finish.relu and not pools
        logsumexp = cpu.attend_into(to, projected, arguments, bias=shift, relu=relu)
        if pools:
            pooled = average(to.flatten(-2).permute(0, 3, 1, 2), layout.stride, padding)
            out[part] = pooled.permute(0, 2, 3, 1).unflatten(-1, out.shape[-2:])
        if kept is not None:
            kept.append(logsumexp)
            if not _projects_anew(pixels, p.weight):
                kept.append(projected)
    if pools and finish is not None and finish.relu:
        out.relu_()
    return out.flatten(-2).permute(0, 3, 1, 2)


class _ProjectAndAttend(torch.autograd.Function):
    """`_forward`, whose backward pass goes by the same parts."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, *arguments: Any) -> Tensor:
        *tensors, mask, ctx.layout = arguments
        kept: list[Tensor] = []
        out = _forward(pixels, Parameters(*tensors), mask, ctx.layout, kept=kept)
        ctx.save_for_backward(pixels, *tensors, mask, *kept)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        pixels, weight, bias, rows, columns, mask, *kept = ctx.saved_tensors
        parameters = Parameters(weight, bias, rows, columns)
        needed = ctx.needs_input_grad[:5]
        if torch.is_grad_enabled():  # create_graph: by way of functions that have derivatives themselves
            tensors = (pixels, weight, bias, rows, columns)
            given = [tensor for tensor, need in zip(tensors, needed, strict=True) if need]
            out = _attend_whole(pixels, parameters, mask, ctx.layout)
            found = iter(torch.autograd.grad(out, given, gradients[0], create_graph=True))
        else:
            found = iter(_backward(gradients[0], pixels, parameters, mask, kept, ctx.layout, needed))
        return *(next(found) if need else None for need in needed), None, None


def _backward(  # the pieces of a context
    gradient: Tensor,
    pixels: Tensor,
    p: Parameters,
    mask: Tensor | None,
    kept: list[Tensor],
    layout: Layout,
    needed: tuple[bool, ...],
) -> list[Tensor]:
    """Give the gradients of those of pixels, weight, bias and tables that are needed."""
    to_pixels = torch.empty_like(pixels, memory_format=torch.contiguous_format) if needed[0] else None
    totals: list[Tensor | None] = [None] * 4
    remembered, anew = iter(kept), _projects_anew(pixels, p.weight)
    for part in _parts(pixels, p.weight, layout):
        here, padding = pixels[part], None if mask is None else mask[part]
        logsumexp = next(remembered)
        projected = _project(here, p, layout) if anew else next(remembered)
        to_out = _spread_average(gradient[part], here, layout.stride, padding)
        to_maps, *to_tables = cpu.differentiate_packed(
            to_out.permute(0, 2, 3, 1).unflatten(-1, (layout.num_heads, layout.head_dim)),
            projected,
            logsumexp,
            (p.row_embedding, p.column_embedding, padding, layout.options),
        )
        to_here, to_weight, to_bias = pointwise_gradients(
            to_maps.flatten(3), here, p.weight, (needed[0], needed[1], needed[2])
        )
        if to_pixels is not None and to_here is not None:
            to_pixels[part] = to_here
        for i, found in enumerate((to_weight, to_bias, *to_tables)):
            if found is not None and needed[1 + i]:
                total = totals[i]
                totals[i] = found if total is None else total.add_(found)
    return [found for found in (to_pixels, *totals) if found is not None]


def _spread_average(gradient: Tensor, pixels: Tensor, stride: tuple[int, int], mask: Tensor | None) -> Tensor:
    """Undo `average` for a gradient: batch channels height width, as many pixels as there were."""
    if stride == (1, 1):
        return gradient
    if mask is not None:
        gradient = gradient / _presence(mask, gradient.dtype, stride)
    batch, height, width, _ = pixels.shape
    like = pixels.new_empty(batch, height, width, gradient.shape[1]).permute(0, 3, 1, 2)  # never read
    out: Tensor = torch.ops.aten.avg_pool2d_backward(
        gradient, like, stride, stride, [0, 0], True, False, None
    )
    return out
