"""What carries a flow back is the transpose of what carries pixels forward: autograd is the judge."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lookaround import AttentionStem, LocalAttention2d
from lookaround.explorer.flow import (
    Windows,
    attention_shares,
    averaging_shares,
    convolution_shares,
    pooling_shares,
    pull_enlarged,
    taking_shares,
    value_shares,
)
from lookaround.explorer.recording import Call, map_stride

SIZES = [(8, 8), (7, 9), (1, 5), (2, 1)]


def call_of(layer: nn.Module, x: Tensor, mask: Tensor | None = None) -> Call:
    return Call("layer", 0, layer, x, mask, (x.shape[-2], x.shape[-1]))


def transposed(forward: Callable[[Tensor], Tensor], size: tuple[int, int], flow: Tensor) -> Tensor:
    """Carry a flow back through a linear map of images by its gradient."""
    x = torch.zeros(flow.shape[0] * flow.shape[1], 1, *size, requires_grad=True)
    (gradient,) = torch.autograd.grad(forward(x), x, flow.flatten(0, 1)[:, None])
    return gradient.view(*flow.shape[:2], *size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (3, 2)])
def test_averaging(size, stride) -> None:
    windows = averaging_shares(size, stride, None)
    flow = torch.rand(2, 3, *windows.shares.shape[1:3])
    expected = transposed(
        lambda x: F.avg_pool2d(x, stride, ceil_mode=True, count_include_pad=False), size, flow
    )
    torch.testing.assert_close(windows.pull(flow), expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", [(2, 2), (1, 3)])
def test_taking(size, stride) -> None:
    windows = taking_shares(size, stride)
    flow = torch.rand(1, 2, *windows.shares.shape[1:3])
    expected = transposed(lambda x: x[..., :: stride[0], :: stride[1]], size, flow)
    torch.testing.assert_close(windows.pull(flow), expected)


@pytest.mark.parametrize("size", SIZES)
def test_enlarging(size) -> None:
    small = tuple(-(-side // 2) for side in size)
    flow = torch.rand(1, 2, *size)
    expected = transposed(lambda x: F.interpolate(x, scale_factor=2)[..., : size[0], : size[1]], small, flow)
    torch.testing.assert_close(pull_enlarged(flow), expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(3, 1, 1), (7, 2, 1), ((3, 5), (2, 1), 1), (3, 2, 2)]
)
@torch.no_grad()
def test_convolution(size, kernel, stride, dilation) -> None:
    """As if the kernel were its norms, one channel wide, brought to a sum of 1 within the image."""
    pad = [dilation * (side // 2) for side in (kernel if isinstance(kernel, tuple) else (kernel, kernel))]
    conv = nn.Conv2d(2, 3, kernel, stride, tuple(pad), dilation, bias=False)
    windows = convolution_shares(call_of(conv, torch.rand(1, 2, *size)))
    norms = conv.weight.norm(dim=(0, 1))[None, None]

    def forward(x: Tensor) -> Tensor:
        options = (None, conv.stride, conv.padding, conv.dilation)
        return F.conv2d(x, norms, *options) / F.conv2d(torch.ones_like(x), norms, *options)

    flow = torch.rand(1, 2, *conv(torch.rand(1, 2, *size)).shape[-2:])
    with torch.enable_grad():
        expected = transposed(forward, size, flow)
    torch.testing.assert_close(windows.pull(flow), expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pool", [nn.MaxPool2d(3, 2, padding=1), nn.MaxPool2d(4, ceil_mode=True)])
def test_max_pooling(size, pool) -> None:
    """The mean over channels of the gradient, which goes where the maximum is."""
    x = torch.rand(2, 5, *size, requires_grad=True)
    out = pool(x)
    flow = torch.rand(2, 1, *out.shape[-2:])
    (gradient,) = torch.autograd.grad(out, x, flow.expand_as(out))
    windows = pooling_shares(call_of(pool, x.detach()))
    torch.testing.assert_close(windows.pull(flow), gradient.mean(1, keepdim=True))


def test_places_that_share_a_maximum_share_its_flow() -> None:
    windows = pooling_shares(call_of(nn.MaxPool2d(2), torch.zeros(1, 3, 2, 2)))
    torch.testing.assert_close(windows.pull(torch.ones(1, 1, 1, 1)), torch.full((1, 1, 2, 2), 0.25))


@pytest.mark.parametrize("border", ["mask", "zeros"])
@pytest.mark.parametrize("dilation", [1, (2, 1)])
@pytest.mark.parametrize("size", SIZES)
def test_attention(size, dilation, border) -> None:
    layer = LocalAttention2d(2, 6, 5, dilation=dilation, num_heads=3, border=border)
    x = torch.randn(1, 2, *size)
    weights = layer.attention_weights(x).detach().mean(3)[0]
    flow = torch.rand(1, 2, *size)
    expected = torch.zeros(1, 2, *size)
    for row, column, i, j in np.ndindex(*weights.shape):
        y = row + (i - 2) * layer.dilation[0]
        x_ = column + (j - 2) * layer.dilation[1]
        if 0 <= y < size[0] and 0 <= x_ < size[1]:
            expected[..., y, x_] += flow[..., row, column] * weights[row, column, i, j]
    with torch.inference_mode():
        windows = attention_shares(call_of(layer, x))
    torch.testing.assert_close(windows.pull(flow), expected)


@torch.no_grad()
def test_stems() -> None:
    """A stem of plain values whose value map is the mean is the weights themselves."""
    stem = AttentionStem(1, 2, 1, values="plain", pool=1)
    nn.init.ones_(stem.value_weight)
    x = torch.rand(1, 1, 6, 9)
    call = call_of(stem, x)
    flow = torch.rand(1, 1, 6, 9)
    summed = (attention_shares(call).pull(flow) * x).sum()
    torch.testing.assert_close(summed, (stem._attend(x)[:, :1] * flow).sum())
    assert value_shares(call) is None


@torch.no_grad()
@pytest.mark.parametrize("size", [(8, 8), (6, 9)])
def test_values_of_a_stem_by_convolution(size) -> None:
    stem = AttentionStem(1, 1, 1, values="convolution", pool=1)
    nn.init.constant_(stem.value_conv.weight, 0.5)
    values = value_shares(call_of(stem, torch.rand(1, 1, *size)))
    assert values is not None
    flow = torch.rand(1, 1, *size)
    pulled = values.pull(flow)
    torch.testing.assert_close(pulled.sum(), flow.sum())
    alone = torch.zeros(1, 1, *size)
    alone[..., 5, 4] = 1.0
    reached = values.pull(alone)[0, 0].nonzero()
    assert reached.min(0).values.tolist() == [4, 3]  # one before, two after
    assert reached.max(0).values.tolist() == [min(7, size[0] - 1), 6]


def test_padding_gives_nothing() -> None:
    mask = torch.zeros(2, 4, 6, dtype=torch.bool)
    mask[1, :, 3:] = True
    flow = torch.rand(2, 1, 2, 3)
    flow[1, :, :, 2] = 0.0
    for windows in (
        averaging_shares((4, 6), (2, 2), mask),
        convolution_shares(call_of(nn.Conv2d(1, 1, 3, 2, 1), torch.rand(2, 1, 4, 6), mask)),
        pooling_shares(call_of(nn.MaxPool2d(2), torch.rand(2, 1, 4, 6), mask)),
    ):
        pulled = windows.pull(flow)
        assert (pulled[1, :, :, 3:] == 0).all()
        torch.testing.assert_close(pulled.sum((-1, -2)), flow.sum((-1, -2)))


def test_a_window_beyond_the_map_takes_nothing() -> None:
    windows = Windows(torch.ones(1, 1, 1, 1, 3), (1, 1), start=(0, -5))
    assert (windows.pull(torch.ones(1, 1, 1, 1)) == 0).all()
    assert (windows.within().shares == 0).all()


@pytest.mark.parametrize(
    ("image", "small", "stride"), [(10, 10, 1), (10, 5, 2), (10, 3, 4), (227, 55, 4), (5, 0, 5)]
)
def test_strides_of_maps(image: int, small: int, stride: int) -> None:
    assert map_stride(image, small) == stride
