"""Batch norm and ReLU with less memory equal the modules that they stand for."""

import copy

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from lookaround.nn.batch_norm import normalize_add, normalize_then, trains_plainly
from lookaround.ops.backends import cpu

pytestmark = pytest.mark.skipif(not cpu.is_available(), reason="no native kernel")

SHAPES = [(4, 64, 9, 7), (3, 37, 5, 5), (2, 300, 3, 3), (16, 8, 1, 1), (1, 16, 40, 41)]


class Block(nn.Module):
    """bn, relu, convolution, bn, plus, relu; by modules or by the functions under test."""

    def __init__(self, channels: int, plainly: bool = False) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.relu, self.conv = nn.ReLU(inplace=True), nn.Conv2d(channels, channels, 1)
        self.plainly = plainly
        for parameter in self.parameters():
            nn.init.normal_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        if self.plainly:
            out = self.bn2(self.conv(torch.relu(self.bn1(x))))
            return torch.relu(out + x)
        return normalize_add(self.bn2, self.relu, normalize_then(self.bn1, self.relu, self.conv, x), x)


def pair(channels: int) -> tuple[Block, Block]:
    block = Block(channels)
    exact = copy.deepcopy(block).double()
    exact.plainly = True
    return block, exact


def images(*shape: int) -> Tensor:
    return (torch.randn(shape) * 3 + 5).to(memory_format=torch.channels_last)


def run(block: Block, x: Tensor) -> list[Tensor]:
    x = x.detach().requires_grad_()
    out = block(x)
    weight = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view(out.shape)
    return [out.detach(), *torch.autograd.grad(out, [x, *block.parameters()], weight)]


def assert_close(actual: list[Tensor], exact: list[Tensor]) -> None:
    largest = max(float(e.abs().max()) for e in exact[1:])
    for a, e in zip(actual, exact, strict=True):
        torch.testing.assert_close(a.double(), e.double(), rtol=1e-4, atol=1e-5 * largest)


@pytest.mark.parametrize("shape", SHAPES)
def test_values_gradients_and_running_statistics(shape: tuple[int, ...]) -> None:
    block, exact = pair(shape[1])
    for _ in range(2):
        x = images(*shape)
        assert_close(run(block, x), run(exact, x.double()))
    for name, buffer in exact.named_buffers():
        torch.testing.assert_close(block.get_buffer(name).double(), buffer.double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", cpu.instruction_sets() if cpu.is_available() else [])
def test_every_instruction_set(name: str) -> None:
    if not cpu.instruction_sets()[name]:
        pytest.skip(f"this processor has no {name}")
    block, exact = pair(19)
    x = images(3, 19, 6, 5)
    with cpu.use_instruction_set(name):
        assert_close(run(block, x), run(exact, x.double()))


def test_a_mean_far_from_zero_leaves_the_variance_right() -> None:
    x = (torch.randn(8, 16, 10, 10) + 3000).to(memory_format=torch.channels_last)
    mean, variance = torch.ops.lookaround.batch_moments(x.permute(0, 2, 3, 1))
    torch.testing.assert_close(mean.double(), x.double().mean((0, 2, 3)), rtol=1e-6, atol=0)
    torch.testing.assert_close(variance.double(), x.double().var((0, 2, 3), correction=0), rtol=1e-4, atol=0)


def test_nan_is_not_hidden_by_the_relu() -> None:
    block, x = Block(8), images(2, 8, 4, 4)
    x[0, 3, 1, 1] = torch.nan
    assert block(x)[:, 3].isnan().all()


def test_what_the_next_layer_saved_is_not_kept() -> None:
    block, x = Block(16), images(4, 16, 32, 32)
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        block(x.requires_grad_())
    addresses = {tensor.data_ptr() for tensor in kept if tensor.numel() == x.numel()}
    assert len(addresses) == 3  # x, the convolution's output, the output: no normalised map


def test_eval_mode_uses_the_running_statistics() -> None:
    block, exact = pair(8)
    x = images(4, 8, 6, 6)
    block(x), exact(x.double())
    torch.testing.assert_close(block.eval()(x).double(), exact.eval()(x.double()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("watch", ["hook", "pre-hook", "subclass", "frozen", "no momentum", "other memory"])
def test_where_the_kernel_does_not_serve_the_modules_run(watch: str) -> None:
    block, exact = pair(8)
    x, seen = images(4, 8, 6, 6), []
    if watch == "hook":
        block.bn1.register_forward_hook(lambda *_: seen.append("bn1"))
    elif watch == "pre-hook":
        block.relu.register_forward_pre_hook(lambda *_: seen.append("relu"))
    elif watch == "subclass":
        block.bn1.__class__ = type("Special", (nn.BatchNorm2d,), {})
    elif watch == "frozen":
        block.bn1.eval(), exact.bn1.eval()
    elif watch == "no momentum":
        block.bn1.momentum = exact.bn1.momentum = None
    else:
        x = x.contiguous()
    assert_close(run(block, x), run(exact, x.double()))
    assert bool(seen) == (watch in ("hook", "pre-hook"))


def test_second_derivatives() -> None:
    def penalty(block: Block, x: Tensor) -> list[Tensor]:
        x = x.detach().requires_grad_()
        (to_x,) = torch.autograd.grad(block(x).square().sum(), x, create_graph=True)
        return list(torch.autograd.grad(to_x.square().sum(), [x, *block.parameters()]))

    block, exact = pair(6)
    x = images(3, 6, 4, 4)
    assert_close(penalty(block, x), penalty(exact, x.double()))


def test_the_same_bits_for_every_number_of_threads() -> None:
    block, x, found = Block(24), images(8, 24, 20, 20), []
    mean = torch.ops.lookaround.batch_moments(x.permute(0, 2, 3, 1))
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            found.append(torch.ops.lookaround.batch_moments(x.permute(0, 2, 3, 1)))
        finally:
            torch.set_num_threads(1)
    for other in found:
        assert torch.equal(other[0], mean[0])
        assert torch.equal(other[1], mean[1])
    assert block(x).isfinite().all()


def test_a_checkpoint_decides_what_is_kept() -> None:
    """Its hooks would not see what the native norm keeps by hooks of its own, and would save nothing."""
    bn, relu = nn.BatchNorm2d(4), nn.ReLU()
    asked = []

    def ask(x: Tensor) -> Tensor:
        asked.append(trains_plainly(bn, relu))
        return relu(bn(x))

    x = torch.randn(2, 4, 3, 3, requires_grad=True)
    ask(x)
    torch.utils.checkpoint.checkpoint(ask, x, use_reentrant=False)
    assert asked == [True, False]
