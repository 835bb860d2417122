import pytest
import torch
from torch import Tensor

from lookaround.ops import block_attention
from lookaround.ops.backends import cpu

SIZES = [(1, 1), (4, 4), (5, 3), (8, 70), (13, 66), (3, 130)]


def draw(height: int, width: int, *, channels: int = 3, head_dim: int = 16, size: int = 4) -> list[Tensor]:
    torch.manual_seed(height * 100 + width)
    pixels = torch.randn(2, channels, height, width).permute(0, 2, 3, 1)  # as an image in contiguous memory
    return [pixels, torch.randn(4, channels, channels), torch.randn(size * size, 4, head_dim, channels)]


def by_loops(pixels: Tensor, form: Tensor, maps: Tensor, size: int) -> Tensor:
    """The equation in float64: one query after the other."""
    pixels, form, maps = pixels.double(), form.double(), maps.double()
    batch, height, width, _ = pixels.shape
    heads, head_dim = maps.shape[1:3]
    out = torch.zeros(batch, height, width, heads, head_dim, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            rows = range(y // size * size, min(y // size * size + size, height))
            columns = range(x // size * size, min(x // size * size + size, width))
            seen = [(a, b) for a in rows for b in columns]
            keys = torch.stack([pixels[:, a, b] for a, b in seen], 1)  # batch keys channels
            logits = torch.einsum("bi,hij,bkj->bhk", pixels[:, y, x], form, keys)
            places = [maps[a % size * size + b % size] for a, b in seen]
            values = torch.einsum("khdi,bki->bhkd", torch.stack(places), keys)
            out[:, y, x] = torch.einsum("bhk,bhkd->bhd", logits.softmax(-1), values)
    return out.flatten(-2)


@pytest.fixture(params=["native", "portable"])
def dtype(request) -> torch.dtype:
    """Float32 runs natively where a library is there; float64 never does."""
    if request.param == "native" and not cpu.is_available():
        pytest.skip("no native library")
    return torch.float32 if request.param == "native" else torch.float64


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_it_is_the_equation(height, width, dtype):
    inputs = draw(height, width)
    out = block_attention(*(x.to(dtype) for x in inputs), block_size=4)
    torch.testing.assert_close(out.double(), by_loops(*inputs, 4), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(("channels", "head_dim", "size"), [(1, 5, 2), (2, 3, 3), (3, 8, 4), (4, 1, 1)])
def test_every_number_of_channels_and_places(channels, head_dim, size, dtype):
    inputs = draw(7, 37, channels=channels, head_dim=head_dim, size=size)
    out = block_attention(*(x.to(dtype) for x in inputs), block_size=size)
    torch.testing.assert_close(out.double(), by_loops(*inputs, size), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_pooled_it_is_the_largest_of_each_block(height, width, dtype):
    inputs = [x.to(dtype) for x in draw(height, width)]
    whole = block_attention(*inputs, block_size=4)
    pooled = block_attention(*inputs, block_size=4, pooled=True)
    expected = torch.nn.functional.max_pool2d(whole.permute(0, 3, 1, 2), 4, ceil_mode=True)
    torch.testing.assert_close(pooled.permute(0, 3, 1, 2), expected)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_native_gradients_are_those_of_the_portable_form(height, width):
    if not cpu.is_available():
        pytest.skip("no native library")
    pixels, form, maps = draw(height, width)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        leaves = [form.to(dtype).requires_grad_(), maps.to(dtype).requires_grad_()]
        out = block_attention(pixels.to(dtype), *leaves, block_size=4)
        weights = torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out)
        gradients.append(torch.autograd.grad((out * weights).sum(), leaves))
    for native, exact in zip(*gradients, strict=True):
        scale = exact.abs().max().item()
        torch.testing.assert_close(native.double(), exact, rtol=1e-5, atol=1e-5 * max(scale, 1))


def test_pixels_get_a_gradient_too():
    pixels, form, maps = (x.double() for x in draw(5, 6, head_dim=2))
    pixels.requires_grad_(), form.requires_grad_(), maps.requires_grad_()
    assert torch.autograd.gradcheck(lambda *x: block_attention(*x, block_size=4), (pixels, form, maps))


def test_the_number_of_threads_changes_no_bit():
    inputs = draw(64, 64)
    inputs[1].requires_grad_(), inputs[2].requires_grad_()
    results = []
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            out = block_attention(*inputs, block_size=4)
            results.append((out, *torch.autograd.grad(out.square().sum(), inputs[1:])))
        finally:
            torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_computes_in_float32(dtype):
    inputs = [x.to(dtype) for x in draw(9, 10)]
    out = block_attention(*inputs, block_size=4)
    exact = block_attention(*(x.float() for x in inputs), block_size=4)
    assert out.dtype == dtype
    assert torch.equal(out, exact.to(dtype))


def test_autocast_gives_its_dtype():
    inputs = draw(9, 10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = block_attention(*inputs, block_size=4)
    assert torch.equal(out, block_attention(*inputs, block_size=4).bfloat16())


def test_autocast_leaves_float64_alone():
    inputs = [x.double() for x in draw(9, 10)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = block_attention(*inputs, block_size=4)
    assert torch.equal(out, block_attention(*inputs, block_size=4))
