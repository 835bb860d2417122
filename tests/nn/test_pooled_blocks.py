"""The attention stem in training equals its modules, though it writes no map of the whole resolution."""

import copy

import pytest
import torch
from torch import Tensor, nn

from lookaround.nn import AttentionStem
from lookaround.ops.backends import cpu

pytestmark = pytest.mark.skipif(not cpu.is_available(), reason="no native kernel")


def make(**options) -> AttentionStem:
    stem = AttentionStem(3, 16, num_heads=2, **options)
    nn.init.normal_(stem.bn.weight)  # of both signs: the norm turns some channels around
    nn.init.normal_(stem.bn.bias)
    return stem


def run(stem: AttentionStem, x: Tensor) -> list[Tensor]:
    out = stem(x)
    weight = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view(out.shape)
    out.backward(weight)
    return [out.detach(), *(p.grad for p in stem.parameters() if p.grad is not None)]


@pytest.mark.parametrize("size", [(16, 16), (13, 22), (4, 80), (1, 3)])
@pytest.mark.parametrize("values", ["spatially_aware", "plain"])
def test_values_gradients_and_running_statistics(size: tuple[int, int], values: str) -> None:
    stem = make(values=values)
    exact = copy.deepcopy(stem).double()
    x = torch.randn(3, 3, *size) + 0.5
    expected = run(exact, x.double())
    actual = run(stem, x)
    assert len(actual) == len(expected)
    largest = max(float(e.abs().max()) for e in expected)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a.double(), e, rtol=1e-4, atol=1e-5 * largest)
    for name, buffer in exact.named_buffers():
        torch.testing.assert_close(stem.get_buffer(name).double(), buffer.double(), rtol=1e-4, atol=1e-5)


def test_nothing_of_the_whole_resolution_is_kept() -> None:
    stem, x, sizes = make(), torch.randn(2, 3, 64, 64), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        stem(x)
    assert max(sizes) == x.numel()


@pytest.mark.parametrize("change", ["hook", "pool", "image gradient"])
def test_where_it_does_not_serve_the_modules_run(change: str) -> None:
    stem, x = make(), torch.randn(2, 3, 16, 16)
    exact, seen = copy.deepcopy(stem).double(), []
    if change == "hook":
        stem.bn.register_forward_hook(lambda *_: seen.append("bn"))
    elif change == "pool":
        stem.pool = exact.pool = nn.MaxPool2d(2)
    else:
        x.requires_grad_()
    torch.testing.assert_close(stem(x).double(), exact(x.double()), rtol=1e-4, atol=1e-4)
    assert bool(seen) == (change == "hook")
    if change == "image gradient":
        stem(x).sum().backward()
        assert x.grad is not None
