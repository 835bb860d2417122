"""Linear maps of pixels, by the fastest product that PyTorch has for them.

On the CPU a float32 linear map and a 1x1 convolution run in PyTorch through MKL, which uses half of the
vector units on processors that are not Intel's. PyTorch's other library, oneDNN, uses all of them, but is
asked only by compiled graphs. Here it is asked directly; where it does not serve, the ordinary functions do.
"""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lookaround.ops.modes import is_plain_cpu_call

NO_ACTIVATION: tuple[str, list[Any], str] = ("none", [], "")


def onednn_serves(*tensors: Tensor | None) -> bool:
    """Tell whether oneDNN can be asked directly: eager tensors on the CPU, of a dtype that it computes."""
    if torch.compiler.is_compiling():  # first: what follows cannot be traced
        return False
    given = [tensor for tensor in tensors if tensor is not None]
    return is_plain_cpu_call(*given, dtypes=_onednn_dtypes()) and torch.backends.mkldnn.is_available()


@functools.cache
def _onednn_dtypes() -> tuple[torch.dtype, ...]:
    """Give the dtypes that oneDNN computes on this processor."""
    has_bfloat16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return (torch.float32, torch.bfloat16) if has_bfloat16 else (torch.float32,)


def pointwise_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Do `F.linear`: batch height width in_channels to batch height width out_channels.

    Args:
        x: pixels; any number of leading dimensions.
        weight: out_channels in_channels.
        bias: out_channels, or None.

    Example:
        >>> pointwise_linear(torch.ones(1, 2, 2, 3), torch.ones(1, 3)).flatten()
        tensor([3., 3., 3., 3.])
    """
    if not onednn_serves(x, weight, bias):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias)):
        return _convolve(x, weight, bias) if x.dim() == 4 else F.linear(x, weight, bias)
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, *NO_ACTIVATION)
    return out


def pointwise_gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, needed: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Give the gradients of x, weight and bias of `pointwise_linear`, those that are needed.

    Args:
        gradient: of the output, batch height width out_channels.
        x: batch height width in_channels.
        weight: out_channels in_channels.
        needed: of x, weight, bias.
    """
    to_x, to_weight, to_bias = torch.ops.aten.convolution_backward(
        *(gradient.permute(0, 3, 1, 2), x.permute(0, 3, 1, 2), weight[:, :, None, None]),
        *([weight.shape[0]], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, needed),
    )
    return (
        None if to_x is None else to_x.permute(0, 2, 3, 1),
        None if to_weight is None else to_weight.flatten(1),
        to_bias,
    )


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Do it as a convolution, whose gradients PyTorch asks of oneDNN."""
    out = F.conv2d(x.permute(0, 3, 1, 2), weight[:, :, None, None], bias)
    return out.permute(0, 2, 3, 1)


class PointwiseConv2d(nn.Conv2d):
    """A 1x1 convolution as a linear map of the pixels; parameters and state are those of `nn.Conv2d`.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: every stride-th pixel is mapped.
        bias: whether a constant is added.

    Example:
        >>> PointwiseConv2d(3, 8, stride=2)(torch.randn(1, 3, 5, 5)).shape
        torch.Size([1, 8, 3, 3])
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, bias: bool = False) -> None:
        super().__init__(in_channels, out_channels, 1, stride, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return batch out_channels ceil(height / stride) ceil(width / stride)."""
        # With gradients PyTorch asks oneDNN by itself.
        if torch.is_grad_enabled() or x.dim() != 4 or not onednn_serves(x, self.weight, self.bias):
            return super().forward(x)
        if self.stride != (1, 1):
            x = x[:, :, :: self.stride[0], :: self.stride[1]]
        pixels = x.permute(0, 2, 3, 1)  # a free view of channels-last memory
        return pointwise_linear(pixels, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
