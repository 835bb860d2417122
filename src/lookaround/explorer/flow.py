"""From where in the map before it a map's pixels take what they hold: shares of a window for each pixel.

A flow says for some queries how much of them stands at each pixel of a map: batch queries height width. It
is carried from a map to the map before by `pull`, one shifted sum for each place in the window, so that a
network of N pixels and windows of k x k needs k²·N shares and never an N x N matrix.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lookaround.explorer.recording import Call
from lookaround.explorer.window_weights import bands, window_of, window_weights
from lookaround.nn import AttentionStem

Pair = tuple[int, int]
Flow = Float[Tensor, "batch queries _height _width"]


@dataclass(frozen=True)
class Windows:
    """What each pixel of a map takes from a window of the map before.

    Attributes:
        shares: of each pixel, the share of every place in its window; one image may stand for the whole
            batch. They sum to 1 unless something is taken from beyond the image.
        size: height and width of the map before.
        stride: distance between the windows of neighbouring pixels, vertical and horizontal.
        start: where the first pixel's window begins, in the map before.
        dilation: distance between neighbours in the window.
    """

    shares: Float[Tensor, "batch height width kernel_height kernel_width"]
    size: Pair
    stride: Pair = (1, 1)
    start: Pair = (0, 0)
    dilation: Pair = (1, 1)

    def pull(self, flow: Flow) -> Flow:
        """Carry a flow to the map before.

        Cost:
            `k²·queries·N` multiply-adds.

        Example:
            >>> halves = Windows(torch.full((1, 1, 2, 1, 2), 0.5), size=(1, 4), stride=(2, 2))
            >>> halves.pull(torch.tensor([[[[1.0, 0.0]]]]))
            tensor([[[[0.5000, 0.5000, 0.0000, 0.0000]]]])
        """
        out = flow.new_zeros(*flow.shape[:2], *self.size)
        for i in range(self.shares.shape[-2]):
            down = self._reach(0, i, flow.shape[-2])
            for j in range(self.shares.shape[-1]):
                across = self._reach(1, j, flow.shape[-1])
                taken = flow[..., down[0], across[0]] * self.shares[:, None, down[0], across[0], i, j]
                out[..., down[1], across[1]] += taken
        return out

    def within(self, mask: Bool[Tensor, "batch height width"] | None = None) -> "Windows":
        """Leave out the places that are no part of the image, and bring each pixel's shares to a sum of 1.

        Args:
            mask: of the map before, True for padding.
        """
        shape = self.shares.shape
        there = torch.ones(1, *self.size) if mask is None else (~mask).float().cpu()
        present = self.shares.new_zeros(max(len(there), shape[0]), *shape[1:])
        for i in range(shape[-2]):
            down = self._reach(0, i, shape[1])
            for j in range(shape[-1]):
                across = self._reach(1, j, shape[2])
                present[:, down[0], across[0], i, j] = there[:, down[1], across[1]]
        shares = self.shares * present
        whole = shares.sum((-1, -2), keepdim=True)
        shares = shares / whole.masked_fill(whole == 0, 1.0)
        return Windows(shares, self.size, self.stride, self.start, self.dilation)

    def _reach(self, axis: int, tap: int, count: int) -> tuple[slice, slice]:
        """Tell which pixels have a place of their window within the map before, and where it is."""
        step, shift = self.stride[axis], self.start[axis] + tap * self.dilation[axis]
        first = max(0, -(shift // step))  # the least i >= 0 with i * step + shift >= 0
        last = min(count - 1, (self.size[axis] - 1 - shift) // step)
        if last < first:
            return slice(0, 0), slice(0, 0)
        return slice(first, last + 1), slice(first * step + shift, last * step + shift + 1, step)


def pull_enlarged(flow: Flow) -> Flow:
    """Carry a flow from a map to the one of half the size that it was enlarged from."""
    return F.avg_pool2d(flow, 2, ceil_mode=True, divisor_override=1)


def attention_shares(call: Call) -> Windows:
    """Take the weights of an attention layer or stem, averaged over its heads."""
    kernel, dilation = window_of(call)
    width = call.size[1]
    parts = [window_weights(call, band, (0, width)).float().mean(3).cpu() for band in bands(call)]
    start = (-(kernel[0] // 2) * dilation[0], -(kernel[1] // 2) * dilation[1])
    return Windows(torch.cat(parts, 1), call.size, (1, 1), start, dilation)


def convolution_shares(call: Call) -> Windows:
    """Take the norms of a convolution's weights, over its channels, at each place of the kernel."""
    conv = call.layer
    assert isinstance(conv, nn.Conv2d)
    pad, stride, dilation = _pair(conv.padding), _pair(conv.stride), _pair(conv.dilation)
    norms = _tap_norms(conv)
    height, width = (
        (call.size[axis] + 2 * pad[axis] - dilation[axis] * (norms.shape[axis] - 1) - 1) // stride[axis] + 1
        for axis in (0, 1)
    )
    shares = norms.expand(1, height, width, -1, -1)
    windows = Windows(shares, call.size, stride, (-pad[0], -pad[1]), dilation)
    return windows.within(call.key_padding_mask)


def value_shares(call: Call) -> Windows | None:
    """Take the same of the convolution that makes the values of an attention stem, if one does."""
    stem = call.layer
    assert isinstance(stem, AttentionStem)
    if stem.values != "convolution":
        return None
    before = (stem.block_size - 1) // 2
    shares = _tap_norms(stem.value_conv).expand(1, *call.size, -1, -1)
    return Windows(shares, call.size, (1, 1), (-before, -before)).within(call.key_padding_mask)


def pooling_shares(call: Call) -> Windows:
    """Take for each place of a max-pooling's window the share of channels whose maximum is there."""
    pool = call.layer
    assert isinstance(pool, nn.MaxPool2d)
    kernel, stride, pad = _pair(pool.kernel_size), _pair(pool.stride), _pair(pool.padding)
    out = pool.forward(call.x)  # without the hook that this is called from
    height, width = out.shape[-2:]
    windows = Windows(torch.ones(1, height, width, *kernel), call.size, stride, (-pad[0], -pad[1]))
    shares = torch.zeros(len(out), height, width, *kernel)
    ties = torch.zeros_like(out, dtype=torch.float32)
    for filling in (False, True):  # first the number of places that share a maximum, then their shares
        for i in range(kernel[0]):
            down = windows._reach(0, i, height)
            for j in range(kernel[1]):
                across = windows._reach(1, j, width)
                here = (..., down[0], across[0])
                largest = (call.x[..., down[1], across[1]] == out[here]).float()
                if filling:
                    shares[:, down[0], across[0], i, j] = (largest / ties[here]).mean(1).cpu()
                else:
                    ties[here] += largest
    return Windows(shares, windows.size, windows.stride, windows.start).within(call.key_padding_mask)


def averaging_shares(size: Pair, stride: Pair, mask: Bool[Tensor, "batch height width"] | None) -> Windows:
    """Average the pixels under each stride, as attention with a stride does."""
    height, width = (-(-side // step) for side, step in zip(size, stride, strict=True))
    return Windows(torch.ones(1, height, width, *stride), size, stride).within(mask)


def taking_shares(size: Pair, stride: Pair) -> Windows:
    """Take every stride-th pixel, as a 1x1 convolution with a stride does."""
    height, width = (-(-side // step) for side, step in zip(size, stride, strict=True))
    return Windows(torch.ones(1, height, width, 1, 1), size, stride)


def _tap_norms(conv: nn.Conv2d) -> Float[Tensor, "kernel_height kernel_width"]:
    norms: Tensor = conv.weight.detach().float().norm(dim=(0, 1)).cpu()
    return norms


def _pair(value: object) -> Pair:
    if isinstance(value, int):
        return value, value
    assert isinstance(value, tuple)
    return value[0], value[1]
