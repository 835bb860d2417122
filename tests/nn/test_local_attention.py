"""The layer equals the oracle's loops on its own parameters, and stands where a convolution stood."""

import copy

import pytest
import torch
from torch import Tensor, nn

import oracle
from lookaround.errors import ShapeError
from lookaround.nn import LocalAttention2d
from lookaround.nn.position import sinusoidal_embedding

OPTIONS = {
    "plain": {},
    "pairs": {"kernel_size": (5, 3), "dilation": (1, 2)},
    "tables_per_head": {"shared_tables": False},
    "absolute": {"position": "absolute"},
    "no_position": {"position": "none"},
    "position_only": {"content": False},
    "zeros": {"border": "zeros"},
    "scaled": {"scale": 0.3},
    "biased": {"bias": True},
    "position_only_per_head_biased": {"content": False, "shared_tables": False, "bias": True},
}
EVERY_OPTION = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())


def make(in_channels: int = 3, out_channels: int = 8, kernel_size=3, **options) -> LocalAttention2d:
    options = {"num_heads": 2, "dtype": torch.float64, **options}
    layer = LocalAttention2d(in_channels, out_channels, kernel_size, **options)
    if layer.projection.bias is not None:
        nn.init.normal_(layer.projection.bias)
    return layer


def tensors_of(layer: LocalAttention2d, x: Tensor) -> tuple[Tensor | None, ...]:
    """Compute query, key, value and tables from the documented parameters, one matrix each."""
    pixels = x.permute(0, 2, 3, 1)
    if layer.position == "absolute":
        pixels = pixels + sinusoidal_embedding(*pixels.shape[1:], like=pixels)
    weights = layer.projection.weight.split(layer.out_channels)
    bias = layer.projection.bias
    biases = [0.0] * len(weights) if bias is None else bias.split(layer.out_channels)
    maps = [pixels @ w.T + b for w, b in zip(weights, biases, strict=True)]
    maps = [m.reshape(*m.shape[:3], layer.num_heads, layer.head_dim) for m in maps]
    query, key, value = maps if layer.content else (maps[0], None, maps[1])
    return query, key, value, layer.row_embedding, layer.column_embedding


def exact(layer: LocalAttention2d, x: Tensor, mask: Tensor | None = None) -> Tensor:
    names = ("kernel_size", "dilation", "scale", "border")
    options = {name: getattr(layer, name) for name in names}
    out = oracle.local_attention(*tensors_of(layer, x), mask, **options)
    return out.flatten(-2).permute(0, 3, 1, 2)


def averaged(image: Tensor, stride: tuple[int, int], mask: Tensor | None = None) -> Tensor:
    """Average over the pixels that exist of each stride window, one window at a time."""
    batch, channels, height, width = image.shape
    rows, columns = range(0, height, stride[0]), range(0, width, stride[1])
    out = image.new_zeros(batch, channels, len(rows), len(columns))
    for b in range(batch):
        for i, y in enumerate(rows):
            for j, x in enumerate(columns):
                window = image[b, :, y : y + stride[0], x : x + stride[1]].flatten(1)
                if mask is not None:
                    window = window[:, ~mask[b, y : y + stride[0], x : x + stride[1]].flatten()]
                if window.shape[1]:
                    out[b, :, i, j] = window.mean(1)
    return out


@EVERY_OPTION
def test_equals_the_loops(options: dict) -> None:
    layer, x = make(**options), torch.randn(2, 3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(layer(x), exact(layer, x))


@pytest.mark.parametrize("stride", [2, 3, (1, 2), (3, 1)])
def test_stride_averages_what_the_loops_give(stride) -> None:
    layer, x = make(stride=stride), torch.randn(1, 3, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(layer(x), averaged(exact(layer, x), layer.stride))


@EVERY_OPTION
def test_padding_equals_the_loops(options: dict) -> None:
    layer, x = make(**options, stride=2), torch.randn(2, 3, 5, 4, dtype=torch.float64)
    mask = torch.rand(2, 5, 4) < 0.4
    torch.testing.assert_close(layer(x, mask), averaged(exact(layer, x, mask), (2, 2), mask))


@pytest.mark.parametrize("stride", [1, 2, 3, (1, 2), (3, 2)])
def test_output_size_is_that_of_the_convolution(stride) -> None:
    convolution = nn.Conv2d(4, 4, 3, stride=stride, padding=1)
    attention = LocalAttention2d(4, 4, 3, stride=stride, num_heads=2)
    for height in range(1, 10):
        for width in (1, 2, 3, 8, 9):
            x = torch.randn(1, 4, height, width)
            assert attention(x).shape == convolution(x).shape


@pytest.mark.parametrize("stride", [1, 2])
def test_memory_stays_channels_last(stride: int) -> None:
    layer = LocalAttention2d(4, 8, 3, stride, num_heads=2)
    x = torch.randn(2, 4, 6, 5)
    out = layer(x.to(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, layer(x))


@pytest.mark.parametrize("stride", [1, 2])
def test_one_image_needs_no_batch(stride: int) -> None:
    layer, x = make(stride=stride), torch.randn(3, 5, 4, dtype=torch.float64)
    mask = torch.rand(5, 4) < 0.4
    torch.testing.assert_close(layer(x), layer(x[None])[0])
    torch.testing.assert_close(layer(x, mask), layer(x[None], mask[None])[0])
    torch.testing.assert_close(layer.attention_weights(x), layer.attention_weights(x[None])[0])


@pytest.mark.parametrize("stride", [1, 2])
def test_an_empty_batch_gives_an_empty_batch(stride: int) -> None:
    layer, x = make(stride=stride), torch.zeros(0, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    out = layer(x)
    out.sum().backward()
    assert out.shape == (0, 8, -(-5 // stride), -(-4 // stride))
    assert x.grad is not None
    assert torch.count_nonzero(layer.projection.weight.grad) == 0


@pytest.mark.parametrize("stride", [1, 2])
@EVERY_OPTION
def test_an_image_padded_into_a_larger_one_gives_what_it_gives_alone(options: dict, stride: int) -> None:
    layer, x = make(**options, stride=stride), torch.randn(1, 3, 5, 3, dtype=torch.float64)
    larger = torch.full((1, 3, 8, 7), 1e3, dtype=torch.float64)
    larger[..., :5, :3] = x
    mask = torch.ones(1, 8, 7, dtype=torch.bool)
    mask[:, :5, :3] = False
    out, alone = layer(larger, mask), layer(x)
    height, width = alone.shape[-2:]
    torch.testing.assert_close(out[..., :height, :width], alone)
    assert torch.count_nonzero(out[..., height:, :]) == 0
    assert torch.count_nonzero(out[..., width:]) == 0


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_stay_finite_where_all_is_padding(stride: int) -> None:
    layer, x = make(stride=stride), torch.randn(1, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    mask = torch.zeros(1, 6, 6, dtype=torch.bool)
    mask[:, 2:] = True
    layer(x, mask).square().sum().backward()
    assert x.grad.isfinite().all()
    assert torch.count_nonzero(x.grad[..., 2:, :]) == 0
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


@pytest.mark.parametrize(
    "options",
    [{"shared_tables": False}, {"position": "absolute"}, {"content": False}, {"stride": 2, "bias": True}],
    ids=["per_head", "absolute", "position_only", "strided_biased"],
)
def test_gradients_are_those_of_differences(options: dict) -> None:
    layer = make(2, 4, **options)
    names, values = zip(*layer.named_parameters(), strict=True)
    x = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *(v.detach().requires_grad_() for v in values)))


def test_a_change_of_one_heads_rows_changes_that_heads_channels_alone() -> None:
    layer, x = make(out_channels=12, num_heads=3), torch.randn(1, 3, 4, 4, dtype=torch.float64)
    before = layer(x)
    for part in range(3):  # query, key, value
        changed = copy.deepcopy(layer)
        first = part * 12 + 4  # head 1 of that part
        with torch.no_grad():
            changed.projection.weight[first : first + 4] += 1
        after = changed(x)
        torch.testing.assert_close(after[:, :4], before[:, :4], rtol=0, atol=0)
        torch.testing.assert_close(after[:, 8:], before[:, 8:], rtol=0, atol=0)
        assert (after[:, 4:8] - before[:, 4:8]).abs().amin((0, 2, 3)).min() > 1e-6


@pytest.mark.parametrize("table", ["row_embedding", "column_embedding"])
@pytest.mark.parametrize("shared", [True, False])
def test_zeroing_a_table_changes_every_head(table: str, shared: bool) -> None:
    layer = make(out_channels=16, num_heads=4, shared_tables=shared)
    x = torch.randn(1, 3, 5, 5, dtype=torch.float64)
    before = layer(x)
    with torch.no_grad():
        getattr(layer, table).zero_()
    difference = (layer(x) - before).abs().unflatten(1, (4, 4)).amax((0, 2, 3, 4))
    assert (difference > 1e-3).all()


def test_attention_weights_are_those_of_the_loops() -> None:
    layer, x = make(kernel_size=(3, 5)), torch.randn(1, 3, 4, 4, dtype=torch.float64)
    mask = torch.rand(1, 4, 4) < 0.3
    query, key, _, *tables = tensors_of(layer, x)
    expected = oracle.attention_weights(query, key, *tables, mask, kernel_size=(3, 5))
    torch.testing.assert_close(layer.attention_weights(x, mask), expected)


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"content": False}, {"position": "absolute"}])
def test_autocast_gives_bfloat16_and_finite_gradients(options: dict) -> None:
    layer = LocalAttention2d(4, 8, 3, num_heads=2, **options)
    x = torch.randn(2, 4, 6, 5, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), layer(x), rtol=0.05, atol=0.05)
    out.float().square().sum().backward()
    for tensor in (x, *layer.parameters()):
        assert tensor.grad.dtype == torch.float32
        assert tensor.grad.isfinite().all()
        assert torch.count_nonzero(tensor.grad) > 0


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize("shape", [(2, 4, 5, 5), (5, 5), (1, 2, 3, 4, 5)])
@pytest.mark.parametrize("method", ["forward", "attention_weights"])
def test_an_input_of_another_shape_is_refused(shape: tuple[int, ...], method: str) -> None:
    with pytest.raises(
        ShapeError, match=r"LocalAttention2d: x must have the shape \(batch, 3, height, width\)"
    ):
        getattr(make(), method)(torch.zeros(shape, dtype=torch.float64))


@pytest.mark.usefixtures("shapes_unchecked")
def test_a_mask_of_another_size_is_refused() -> None:
    x, mask = torch.zeros(1, 3, 5, 5, dtype=torch.float64), torch.zeros(1, 5, 4, dtype=torch.bool)
    with pytest.raises(ShapeError, match=r"key_padding_mask: expected \(1, 5, 5\); actual: \(1, 5, 4\)"):
        make()(x, mask)
