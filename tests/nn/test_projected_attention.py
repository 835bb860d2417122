"""Projection and attention by parts compute what they compute as a whole, with the same gradients."""

import copy

import pytest
import torch
from torch import Tensor

from lookaround.errors import ShapeError, UnsupportedCallError
from lookaround.nn import LocalAttention2d
from lookaround.nn import projected_attention as by_parts
from lookaround.nn.fusion import FusedLocalAttention2d
from lookaround.ops.backends import cpu

pytestmark = pytest.mark.skipif(not cpu.is_available(), reason="no native kernel")

OPTIONS = {
    "plain": {},
    "stride": {"stride": 2},
    "stride_pair": {"stride": (1, 3)},
    "pairs": {"kernel_size": (5, 3), "dilation": (1, 2)},
    "tables_per_head": {"shared_tables": False},
    "no_position": {"position": "none"},
    "absolute": {"position": "absolute"},
    "position_only": {"content": False},
    "zeros": {"border": "zeros"},
    "biased": {"bias": True, "scale": 0.3},
}
WAYS = {
    "one part, kept": (1 << 30, 1 << 30, 1 << 30),
    "parts, kept": (1, 1 << 30, 1 << 30),
    "parts, anew": (1, 0, 1 << 30),
    "parts, kept, channels of pixels": (1, 1 << 30, 0),
    "parts, anew, channels of pixels": (1, 0, 0),
}


@pytest.fixture(params=WAYS.values(), ids=WAYS.keys())
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    chunk, anew, wide = request.param
    monkeypatch.setattr(by_parts, "CHUNK_BYTES", chunk)
    monkeypatch.setattr(by_parts, "ANEW_BYTES", anew)
    monkeypatch.setattr(by_parts, "WIDE", wide)


def make(**options) -> LocalAttention2d:
    layer = LocalAttention2d(6, 16, **{"kernel_size": 3, "num_heads": 2, **options})
    if layer.projection.bias is not None:
        torch.nn.init.normal_(layer.projection.bias)
    return layer


def gradients(layer: LocalAttention2d, x: Tensor, mask: Tensor | None) -> list[Tensor]:
    x = x.detach().requires_grad_()
    out = layer(x, mask)
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    found = torch.autograd.grad(out, [x, *layer.parameters()], weight)
    return [out.detach(), *found]


def check(layer: LocalAttention2d, x: Tensor, mask: Tensor | None = None) -> None:
    exact = gradients(copy.deepcopy(layer).double(), x.double(), mask)
    actual = gradients(layer, x, mask)
    for a, e in zip(actual, exact, strict=True):
        torch.testing.assert_close(a.double(), e, rtol=1e-4, atol=1e-4 * float(e.abs().max()))
    with torch.inference_mode():
        torch.testing.assert_close(layer(x, mask), actual[0], rtol=0, atol=1e-5)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_values_and_gradients(options: dict) -> None:
    check(make(**options), torch.randn(9, 6, 7, 11))


@pytest.mark.usefixtures("way")
def test_in_channels_last_memory() -> None:
    check(make(), torch.randn(9, 6, 7, 20).to(memory_format=torch.channels_last))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("stride", [1, 2])
def test_with_padding(stride: int) -> None:
    mask = torch.zeros(9, 7, 11, dtype=torch.bool)
    mask[::2, 4:] = mask[1::3, :, 6:] = True
    check(make(stride=stride), torch.randn(9, 6, 7, 11), mask)


@pytest.mark.parametrize("name", cpu.instruction_sets() if cpu.is_available() else [])
@pytest.mark.parametrize("width", [5, 17, 35])
def test_every_instruction_set_reads_channels_of_pixels(name: str, width: int, monkeypatch) -> None:
    if not cpu.instruction_sets()[name]:
        pytest.skip(f"this processor has no {name}")
    monkeypatch.setattr(by_parts, "WIDE", 0)
    with cpu.use_instruction_set(name):
        check(make(dilation=(1, 2)), torch.randn(3, 6, 5, width))
        check(make(), torch.randn(3, 6, 5, width))


def test_in_bfloat16() -> None:
    layer, x = make().bfloat16(), torch.randn(9, 6, 7, 40).bfloat16()
    exact = copy.deepcopy(layer).double()(x.double())
    torch.testing.assert_close(layer(x).double(), exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("backend", ["auto", "blocked"])
def test_a_shift_and_a_relu_follow(stride: int, backend: str) -> None:
    layer, shift = make(stride=stride, backend=backend), torch.randn(16)
    x = torch.randn(3, 6, 7, 40)
    with torch.inference_mode():
        expected = layer(x) + shift[:, None, None]
        for relu in (False, True):
            actual = FusedLocalAttention2d(layer, shift, relu)(x)
            torch.testing.assert_close(actual, expected.relu() if relu else expected)
    trained = FusedLocalAttention2d(layer, shift)(x)  # with gradients the shift must not be lost
    torch.testing.assert_close(trained, expected.relu())


def test_a_parameter_that_is_frozen_gets_no_gradient() -> None:
    layer = make(bias=True)
    layer.projection.weight.requires_grad_(False)
    layer(torch.randn(9, 6, 7, 11)).sum().backward()
    assert layer.projection.weight.grad is None
    assert layer.projection.bias is not None
    assert layer.projection.bias.grad is not None
    assert layer.row_embedding is not None
    assert layer.row_embedding.grad is not None


def test_first_derivatives_with_a_graph_equal_those_without() -> None:
    layer, x = make(), torch.randn(3, 6, 7, 11, requires_grad=True)
    (plain,) = torch.autograd.grad(layer(x).square().sum(), x)
    (graph,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    torch.testing.assert_close(graph.detach(), plain)


def test_a_second_derivative_is_refused() -> None:
    layer, x = make(), torch.randn(3, 6, 7, 11, requires_grad=True)
    (first,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(UnsupportedCallError, match="backend 'cpu' gives first derivatives only"):
        first.sum().backward()


@pytest.mark.usefixtures("shapes_unchecked")
def test_a_mask_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match="key_padding_mask: expected"):
        make()(torch.randn(3, 6, 7, 11), torch.zeros(3, 7, 10, dtype=torch.bool))


def test_threads_change_no_bit_of_the_output() -> None:
    layer, x = make(num_heads=8), torch.randn(5, 6, 9, 33)
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            found.append(gradients(layer, x, None))
        finally:
            torch.set_num_threads(1)
    assert torch.equal(found[0][0], found[1][0])
    # The matrix products of the gradients are oneDNN's, which sums in another order for other threads.
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)
