"""The attention stem equals plain loops over the pixels of each block, for all three kinds of values."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from lookaround.errors import ArgumentError, ShapeError
from lookaround.nn import AttentionStem

VALUES = ("spatially_aware", "plain", "convolution")
EVERY_KIND = pytest.mark.parametrize("values", VALUES)


def make(values: str, **options) -> AttentionStem:
    options = {"in_channels": 2, "out_channels": 6, "num_heads": 2, "mixtures": 3, **options}
    return AttentionStem(values=values, **options).double()


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


class Loops:
    """The stem's attention as the paper writes it, in float64, one pixel at a time."""

    def __init__(self, stem: AttentionStem, image: Tensor) -> None:
        self.size, self.heads = stem.block_size, stem.num_heads
        self.image = image.numpy()  # channels height width
        self.p = {name: value.detach().numpy() for name, value in stem.named_parameters()}
        self.kind = stem.values

    def block(self, y: int, x: int) -> list[tuple[int, int]]:
        """Name the pixels of the block of a pixel that exist."""
        top, left = y - y % self.size, x - x % self.size
        places = itertools.product(range(top, top + self.size), range(left, left + self.size))
        return [(a, b) for a, b in places if a < self.image.shape[1] and b < self.image.shape[2]]

    def value(self, y: int, x: int) -> np.ndarray:
        if self.kind == "convolution":
            return self.convolved(y, x)
        if self.kind == "plain":
            return self.p["value_weight"][0] @ self.image[:, y, x]
        place = self.p["row_embedding"][y % self.size] + self.p["column_embedding"][x % self.size]
        mixture = softmax(np.array([place @ nu for nu in self.p["mixture_embedding"]]))
        matrix = sum(p * w for p, w in zip(mixture, self.p["value_weight"], strict=True))
        return matrix @ self.image[:, y, x]

    def convolved(self, y: int, x: int) -> np.ndarray:
        kernel = self.p["value_conv.weight"]
        before = (self.size - 1) // 2
        out = np.zeros(kernel.shape[0])
        for i, j in np.ndindex(self.size, self.size):
            a, b = y + i - before, x + j - before
            if 0 <= a < self.image.shape[1] and 0 <= b < self.image.shape[2]:
                out += kernel[:, :, i, j] @ self.image[:, a, b]
        return out

    def weights(self, y: int, x: int, head: int) -> np.ndarray:
        query = self.p["query_weight"][head] @ self.image[:, y, x]
        keys = [self.p["key_weight"][head] @ self.image[:, a, b] for a, b in self.block(y, x)]
        return softmax(np.array([query @ key for key in keys]))

    def attended(self) -> Tensor:
        _, height, width = self.image.shape
        channels = self.p["query_weight"].shape[0] * self.p["query_weight"].shape[1]
        out = np.zeros((self.heads, channels // self.heads, height, width))
        for y, x, head in np.ndindex(height, width, self.heads):
            for weight, (a, b) in zip(self.weights(y, x, head), self.block(y, x), strict=True):
                out[head, :, y, x] += weight * self.value(a, b).reshape(self.heads, -1)[head]
        return torch.from_numpy(out.reshape(channels, height, width))


def exact(stem: AttentionStem, x: Tensor) -> Tensor:
    """Give what the stem puts out in eval mode, pooled by hand."""
    attended = torch.stack([Loops(stem, image).attended() for image in x])
    mean, std = stem.bn.running_mean, (stem.bn.running_var + stem.bn.eps).sqrt()
    shape = (1, -1, 1, 1)
    out = (attended - mean.view(shape)) / std.view(shape) * stem.bn.weight.view(shape) + stem.bn.bias.view(
        shape
    )
    out, size = out.clamp_min(0), 1 if isinstance(stem.pool, torch.nn.Identity) else stem.pool.kernel_size
    rows, columns = range(0, x.shape[2], size), range(0, x.shape[3], size)
    pooled = [[out[..., y : y + size, x : x + size].amax((2, 3)) for x in columns] for y in rows]
    return torch.stack([torch.stack(row, -1) for row in pooled], -2)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 4), (5, 7), (1, 1), (9, 2)])
@EVERY_KIND
def test_equals_the_loops(values: str, height: int, width: int) -> None:
    stem = make(values).eval()
    stem.bn.running_mean.normal_()
    stem.bn.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 2, height, width, dtype=torch.float64)
    torch.testing.assert_close(stem(x), exact(stem, x))


@pytest.mark.parametrize(
    "options", [{"pool": 1}, {"pool": 2}, {"block_size": 3}, {"block_size": 1}, {"num_heads": 3}]
)
@EVERY_KIND
def test_equals_the_loops_with_other_sizes(values: str, options: dict) -> None:
    stem, x = make(values, **options).eval(), torch.randn(1, 2, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(stem(x), exact(stem, x))


@EVERY_KIND
def test_attention_weights_are_those_of_the_loops(values: str) -> None:
    stem, x = make(values), torch.randn(1, 2, 5, 6, dtype=torch.float64)
    weights = stem.attention_weights(x)
    assert weights.shape == (1, 2, 2, 2, 16, 16)
    loops = Loops(stem, x[0])
    for y, x_, head in np.ndindex(5, 6, 2):
        expected = np.zeros((4, 4))
        for weight, (a, b) in zip(loops.weights(y, x_, head), loops.block(y, x_), strict=True):
            expected[a % 4, b % 4] = weight
        mine = weights[0, y // 4, x_ // 4, head, y % 4 * 4 + x_ % 4].view(4, 4)
        torch.testing.assert_close(mine, torch.from_numpy(expected))


def test_the_mixture_of_value_maps_sums_to_one_and_depends_on_the_place() -> None:
    mixture = make("spatially_aware").place_mixture()
    assert mixture.shape == (4, 4, 3)
    torch.testing.assert_close(mixture.sum(-1), torch.ones(4, 4, dtype=torch.float64))
    assert mixture.flatten(0, 1).unique(dim=0).shape[0] == 16


@EVERY_KIND
def test_gradients_are_those_of_differences(values: str) -> None:
    stem = make(values, out_channels=2, num_heads=1, block_size=2, mixtures=2, pool=1)
    names, parameters = zip(*stem.named_parameters(), strict=True)
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)

    def call(x: Tensor, *given: Tensor) -> Tensor:
        fresh = copy.deepcopy(stem)  # batch norm counts its calls
        fresh.relu = torch.nn.Tanh()  # differentiable everywhere
        return torch.func.functional_call(fresh, dict(zip(names, given, strict=True)), (x,))

    leaves = [value.detach().requires_grad_() for value in parameters]
    assert torch.autograd.gradcheck(call, (x, *leaves))


@EVERY_KIND
def test_every_parameter_learns(values: str) -> None:
    stem = make(values, pool=4)
    stem(torch.randn(2, 2, 9, 8, dtype=torch.float64)).square().sum().backward()
    for name, parameter in stem.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert torch.count_nonzero(parameter.grad) > 0, name


class LargestTensor(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operator makes."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs if kwargs is not None else {}))
        if isinstance(out, Tensor):
            self.largest = max(self.largest, out.numel())
        return out


def test_no_query_or_key_maps_are_made() -> None:
    """However long a head is, nothing per pixel grows with it where the weights are computed."""
    stem, x = AttentionStem(3, 1024, num_heads=1), torch.randn(1, 3, 32, 32)
    with torch.no_grad(), LargestTensor() as made:
        stem.attention_weights(x)
    assert made.largest <= 32 * 32 * 16  # the weights themselves: one for each pair of pixels of a block
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        stem.attention_weights(x)
    folding = 2 * 1024 * 3 * 3
    assert counter.get_total_flops() == folding + 2 * 32 * 32 * (3 * 3 + 16 * 3)


def test_blocks_do_not_see_each_other() -> None:
    stem, x = make("spatially_aware", pool=1).eval(), torch.randn(1, 2, 8, 8, dtype=torch.float64)
    changed = x.clone()
    changed[..., :4, :4] += 1
    difference = (stem(changed) - stem(x)).abs().amax(1)[0]
    assert difference[:4, :4].max() > 0
    assert torch.count_nonzero(difference[4:]) == 0
    assert torch.count_nonzero(difference[:, 4:]) == 0


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (
            "spatially_aware",
            ["value_weight", "row_embedding", "column_embedding", "mixture_embedding"],
        ),
        ("plain", ["value_weight"]),
        ("convolution", ["value_conv.weight"]),
    ],
)
def test_the_names_of_the_state_are_these(values: str, names: list[str]) -> None:
    norm = [f"bn.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]
    assert sorted(make(values).state_dict()) == sorted(["query_weight", "key_weight", *names, *norm])


@EVERY_KIND
def test_the_state_survives_a_round_trip(values: str) -> None:
    first, second = make(values).eval(), make(values).eval()
    x = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    second.load_state_dict(first.state_dict(), strict=True)
    assert torch.equal(first(x), second(x))


def test_resetting_draws_from_the_documented_distributions() -> None:
    stem = AttentionStem(16, 256, num_heads=2, mixtures=64)
    with torch.no_grad():
        for parameter in stem.parameters():
            parameter.fill_(7.0)
    stem.reset_parameters()
    expected = {
        "query_weight": (16 * 128) ** -0.5,
        "key_weight": 0.25,
        "value_weight": 0.25,
        "row_embedding": 1,
        "column_embedding": 1,
        "mixture_embedding": 256**-0.5,
    }
    for name, std in expected.items():
        assert getattr(stem, name).std().item() == pytest.approx(std, rel=0.1), name
    convolved = AttentionStem(16, 256, num_heads=2, values="convolution")
    assert convolved.value_conv.weight.std().item() == pytest.approx(1 / 16, rel=0.1)


@EVERY_KIND
def test_autocast_gives_bfloat16_and_finite_gradients(values: str) -> None:
    stem, x = AttentionStem(3, 8, num_heads=2, values=values), torch.randn(2, 3, 9, 8, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = stem(x)
    out.float().square().sum().backward()
    assert all(tensor.grad.isfinite().all() for tensor in (x, *stem.parameters()))


def test_an_empty_batch_gives_an_empty_batch() -> None:
    assert AttentionStem().eval()(torch.zeros(0, 3, 9, 8)).shape == (0, 64, 3, 2)


def test_the_representation_shows_what_it_is() -> None:
    shown = "3, 64, num_heads=4, block_size=4, values='plain', mixtures=4"
    assert AttentionStem(values="plain").extra_repr() == shown


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"values": "planar"},
            r"values must be known; got 'planar'\.\nhint: did you mean 'plain'\? Known: spat",
        ),
        ({"num_heads": 5}, "num_heads must divide out_channels; got num_heads=5, out_channels=64"),
        ({"in_channels": 0}, "sizes must be >= 1"),
        ({"block_size": 0}, "sizes must be >= 1"),
        ({"mixtures": 0}, "sizes must be >= 1"),
        ({"pool": 0}, "sizes must be >= 1"),
    ],
)
def test_options_that_cannot_be_used_are_named(options: dict, words: str) -> None:
    with pytest.raises(ArgumentError, match=f"AttentionStem: .*{words}"):
        AttentionStem(**options)


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8)])
def test_an_input_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"AttentionStem: x must have the shape \(batch, 3, height, width\)"):
        AttentionStem()(torch.zeros(shape))
