"""Linear maps of pixels, by the fastest product that PyTorch has for them.

On the CPU a float32 linear map and a 1x1 convolution run in PyTorch through MKL, which uses half of the
vector units on processors that are not Intel's. PyTorch's other library, oneDNN, uses all of them, but is
asked only by compiled graphs. Here it is asked directly; where it does not serve, the ordinary functions do.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lookaround.ops.modes import is_plain_cpu_call

NO_ACTIVATION: tuple[str, list[Any], str] = ("none", [], "")


def onednn_serves(*tensors: Tensor | None, dtypes: tuple[torch.dtype, ...] = (torch.float32,)) -> bool:
    """Tell whether oneDNN can be asked directly: eager tensors of one of the dtypes on the CPU."""
    given = [tensor for tensor in tensors if tensor is not None]
    return is_plain_cpu_call(*given, dtypes=dtypes) and torch.backends.mkldnn.is_available()


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
        out: Tensor = _PointwiseLinear.apply(x, weight, bias)
        return out
    return _multiply(x, weight, bias)


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, *NO_ACTIVATION)
    return out


class _PointwiseLinear(torch.autograd.Function):
    """`_multiply` with its gradients, which are products of the same kind."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return _multiply(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = gradients[0]
        rows, pixels = gradient.flatten(0, -2), x.flatten(0, -2)
        to_x = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_x = pointwise_linear(gradient, weight.t())
        if ctx.needs_input_grad[1]:
            to_weight = pointwise_linear(pixels.t(), rows.t()).t()
        if ctx.has_bias and ctx.needs_input_grad[2]:
            to_bias = rows.sum(0)
        return to_x, to_weight, to_bias


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
        if x.dim() != 4 or not onednn_serves(x, self.weight, self.bias):
            return super().forward(x)
        if self.stride != (1, 1):
            x = x[:, :, :: self.stride[0], :: self.stride[1]]
        pixels = x.permute(0, 2, 3, 1)  # a free view of channels-last memory
        return pointwise_linear(pixels, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
