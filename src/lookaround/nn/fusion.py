"""Batch norm folded into the layer before it, for inference."""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lookaround.errors import ArgumentError, message
from lookaround.nn.local_attention import LocalAttention2d
from lookaround.nn.pointwise import onednn_serves
from lookaround.nn.projected_attention import Finish
from lookaround.nn.stem import AttentionStem, ConvStem


class Shift(nn.Module):
    """Adds a constant to every channel.

    Args:
        constants: one for each channel.

    Example:
        >>> Shift(torch.tensor([1.0, 2.0]))(torch.zeros(1, 2, 1, 1)).flatten()
        tensor([1., 2.])
    """

    def __init__(self, constants: Tensor) -> None:
        super().__init__()
        self.constants = nn.Parameter(constants.clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return batch channels height width."""
        return x + self.constants[:, None, None]


class FusedConv2d(nn.Module):
    """A convolution, then an addition if there is something to add, then a ReLU, in one pass over memory.

    For inference: it has no gradients where oneDNN serves.

    Args:
        conv: the convolution whose weights it takes over.
        relu: whether a ReLU follows.

    Example:
        >>> FusedConv2d(nn.Conv2d(2, 4, 1))(torch.randn(1, 2, 3, 3)).min() >= 0
        tensor(True)
    """

    def __init__(self, conv: nn.Conv2d, relu: bool = True) -> None:
        super().__init__()
        self.conv, self.relu = conv, relu

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Return relu(conv(x) + added); `added` is overwritten."""
        conv = self.conv
        if torch.is_grad_enabled() or not onednn_serves(x, conv.weight, added):
            summed = conv(x) if added is None else conv(x) + added
            return F.relu(summed) if self.relu else summed
        arguments: list[Any] = [conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups]
        x = x.contiguous(memory_format=torch.channels_last)
        if added is None:
            arguments += ["relu" if self.relu else "none", [], ""]
            return _convolve(torch.ops.mkldnn._convolution_pointwise, x, *arguments)
        added = added.contiguous(memory_format=torch.channels_last)
        arguments += ["add", 1.0, "relu" if self.relu else None, [], ""]
        return _convolve(torch.ops.mkldnn._convolution_pointwise_.binary, added, x, *arguments)


def _convolve(operator: Callable[..., Tensor], *arguments: Any) -> Tensor:
    return operator(*arguments)


class FusedLocalAttention2d(nn.Module):
    """Local attention, then a constant for each channel and a ReLU, in one pass over memory; for inference.

    Args:
        attention: the layer whose weights it takes over.
        shift: a constant for each channel.
        relu: whether a ReLU follows.

    Example:
        >>> layer = FusedLocalAttention2d(LocalAttention2d(8, 8, 3, num_heads=2), torch.zeros(8))
        >>> layer(torch.randn(2, 8, 5, 5)).min() >= 0
        tensor(True)
    """

    def __init__(self, attention: LocalAttention2d, shift: Tensor, relu: bool = True) -> None:
        super().__init__()
        self.attention, self.relu = attention, relu
        self.shift = nn.Parameter(shift.clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(attention(x) + shift)."""
        return self.attention.attend(x, finish=Finish(self.shift, self.relu))


def fuse_attention_bn_eval(
    attention: LocalAttention2d, bn: nn.BatchNorm2d, relu: bool = False
) -> FusedLocalAttention2d:
    """Fold a batch norm that follows local attention, and perhaps a ReLU, into a copy of the attention.

    The scale goes into the value map; the shift is added to the sums.

    Args:
        attention: the layer, in eval mode.
        bn: the batch norm that follows it, in eval mode.
        relu: whether a ReLU follows that.

    Raises:
        ArgumentError: one of them is in training mode, in which a batch norm is no constant map.
    """
    _check_eval("fuse_attention_bn_eval", attention, bn)
    scale, shift = _scale_and_shift(bn)
    fused = copy.deepcopy(attention)
    values = slice(fused.projection.out_features - attention.out_channels, None)
    with torch.no_grad():
        fused.projection.weight[values] *= scale[:, None].to(fused.projection.weight.dtype)
        if fused.projection.bias is not None:
            fused.projection.bias[values] *= scale.to(fused.projection.bias.dtype)
    return FusedLocalAttention2d(fused.requires_grad_(False), shift, relu)


def fuse_stem_eval(stem: ConvStem | AttentionStem) -> ConvStem | AttentionStem:
    """Fold the batch norm inside a stem into a copy of it.

    In the attention stem only the scale goes into the value map. The shift and the ReLU move behind the
    max-pooling, which they commute with and which leaves a sixteenth of the pixels.

    Args:
        stem: the stem, in eval mode.

    Raises:
        ArgumentError: it is in training mode.
    """
    bn = stem.bn
    assert isinstance(bn, nn.BatchNorm2d)
    _check_eval("fuse_stem_eval", stem, bn)
    fused = copy.deepcopy(stem)
    if isinstance(fused, ConvStem):
        assert isinstance(fused.conv, nn.Conv2d)
        fused.conv = FusedConv2d(nn.utils.fuse_conv_bn_eval(fused.conv, bn))
    else:
        scale, shift = _scale_and_shift(bn)
        conv = fused.values == "convolution"
        weight = fused.value_conv.weight if conv else fused.value_weight
        with torch.no_grad():
            weight *= scale.view((-1, 1, 1, 1) if conv else (1, -1, 1))
        pool = fused.pool
        inside = not conv and isinstance(pool, nn.MaxPool2d) and pool.kernel_size == fused.block_size
        fused.pools_inside = inside
        after = [Shift(shift), fused.relu]
        fused.pool = nn.Sequential(*(after if inside else [pool, *after]))
    fused.relu = nn.Identity()
    fused.bn = nn.Identity()
    return fused


def _scale_and_shift(bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert bn.running_mean is not None
    assert bn.running_var is not None
    with torch.no_grad():
        scale = bn.weight / (bn.running_var + bn.eps).sqrt()
        return scale, bn.bias - bn.running_mean * scale


def _check_eval(where: str, *modules: nn.Module) -> None:
    if any(module.training for module in modules):
        hint = "call .eval() on the model first."
        raise ArgumentError(message(where, "the layers must be in eval mode", "training mode", hint=hint))
