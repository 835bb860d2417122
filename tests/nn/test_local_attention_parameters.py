"""How the layer is made: options, names, initial distributions, devices and dtypes."""

import math

import pytest
import torch
from torch import Tensor, nn

from lookaround.errors import ArgumentError, UnknownBackendError
from lookaround.nn import LocalAttention2d

RELATIVE = ["projection.weight", "row_embedding", "column_embedding"]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, RELATIVE),
        ({"shared_tables": False}, RELATIVE),
        ({"content": False}, RELATIVE),
        ({"stride": 2, "dilation": 3, "border": "zeros"}, RELATIVE),
        ({"bias": True}, [*RELATIVE, "projection.bias"]),
        ({"position": "absolute"}, ["projection.weight"]),
        ({"position": "none"}, ["projection.weight"]),
    ],
)
def test_the_names_of_the_state_are_these(options: dict, names: list[str]) -> None:
    layer = LocalAttention2d(8, 16, num_heads=4, **options)
    assert sorted(layer.state_dict()) == sorted(names)
    assert list(layer.buffers()) == []  # nothing is tied to an image size


@pytest.mark.parametrize(
    ("options", "shapes"),
    [
        ({}, {"projection.weight": (48, 8), "row_embedding": (5, 2), "column_embedding": (3, 2)}),
        (
            {"content": False},
            {"projection.weight": (32, 8), "row_embedding": (5, 2), "column_embedding": (3, 2)},
        ),
        (
            {"shared_tables": False},
            {"projection.weight": (48, 8), "row_embedding": (4, 5, 2), "column_embedding": (4, 3, 2)},
        ),
        ({"position": "none", "bias": True}, {"projection.weight": (48, 8), "projection.bias": (48,)}),
    ],
)
def test_the_shapes_of_the_parameters_are_these(options: dict, shapes: dict) -> None:
    layer = LocalAttention2d(8, 16, (5, 3), num_heads=4, **options)
    assert {name: tuple(value.shape) for name, value in layer.named_parameters()} == shapes


def test_the_state_survives_a_round_trip() -> None:
    first, second = (LocalAttention2d(4, 8, 3, num_heads=2, bias=True) for _ in range(2))
    x = torch.randn(1, 4, 5, 5)
    assert not torch.equal(first(x), second(x))
    second.load_state_dict(first.state_dict(), strict=True)
    assert torch.equal(first(x), second(x))


def logit_variance(layer: LocalAttention2d) -> float:
    """Measure the mean square of the initial logits, for independent pixels of unit variance."""
    x = torch.randn(16, layer.in_channels)
    heads, dim = layer.num_heads, layer.head_dim
    query, key = (
        (x @ w.T).view(-1, heads, dim) for w in layer.projection.weight.split(layer.out_channels)[:2]
    )
    logits = torch.zeros(16, heads, 1, 1, 1)
    if layer.content:
        other = ~torch.eye(16, dtype=torch.bool)
        content = torch.einsum("qhd,khd->qkh", query, key)[other].view(16, 15, heads)
        logits = logits + content.transpose(1, 2)[..., None, None]
    if layer.row_embedding is not None:
        rows = torch.einsum("qhd,...id->qhi", query[..., : dim // 2], layer.row_embedding)
        columns = torch.einsum("qhd,...jd->qhj", query[..., dim // 2 :], layer.column_embedding)
        logits = logits + (rows[..., :, None] + columns[..., None, :])[:, :, None]
    return (layer.scale * logits).square().mean().item()


LOGITS = {
    "relative": {},
    "no_position": {"position": "none"},
    "absolute": {"position": "absolute"},
    "position_only": {"content": False},
    "scaled": {"scale": 0.25},
    "scaled_down_and_negative": {"scale": -3.0, "position": "none"},
}


@torch.no_grad()
@pytest.mark.parametrize("options", LOGITS.values(), ids=LOGITS.keys())
def test_initial_logits_have_unit_variance_at_every_head_dim(options: dict) -> None:
    relative = options.get("position", "relative") == "relative"
    for head_dim in range(2, 65, 2 if relative else 1):
        seeds = max(8, 240 // head_dim)  # short vectors vary more
        found = []
        for seed in range(seeds):
            torch.manual_seed(seed)
            found.append(logit_variance(LocalAttention2d(64, 8 * head_dim, 15, num_heads=8, **options)))
        assert sum(found) / seeds == pytest.approx(1, abs=0.1), f"head_dim {head_dim}"


def assert_initial(layer: LocalAttention2d) -> None:
    """Hold every parameter to the distribution that the docstring's table gives it."""
    out, terms = layer.out_channels, int(layer.content) + int(layer.row_embedding is not None)
    query_std = 1 / math.sqrt(layer.in_channels * layer.head_dim * terms * layer.scale**2)
    expected = {"query": query_std, "rest": 1 / math.sqrt(layer.in_channels)}
    parts = {"query": layer.projection.weight[:out], "rest": layer.projection.weight[out:]}
    for name, part in parts.items():
        assert part.std().item() == pytest.approx(expected[name], rel=0.05)
        assert part.mean().item() == pytest.approx(0, abs=0.05 * expected[name])
    for table in (layer.row_embedding, layer.column_embedding):
        assert table.std().item() == pytest.approx(1, rel=0.1)
    if layer.projection.bias is not None:
        assert torch.count_nonzero(layer.projection.bias) == 0


@pytest.mark.parametrize("options", [{}, {"content": False, "bias": True}, {"scale": 0.5}])
def test_resetting_draws_anew_from_the_same_distributions(options: dict) -> None:
    layer = LocalAttention2d(64, 128, 15, num_heads=4, shared_tables=False, **options)
    assert_initial(layer)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(7.0)
    layer.reset_parameters()
    assert_initial(layer)
    for name, value in layer.state_dict().items():
        assert name == "projection.bias" or not torch.equal(value, before[name])


def test_the_same_seed_makes_the_same_layer() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(LocalAttention2d(4, 8, num_heads=2).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_parameters_are_made_of_the_dtype_that_is_asked_for(dtype: torch.dtype) -> None:
    layer = LocalAttention2d(4, 8, 3, stride=2, num_heads=2, bias=True, dtype=dtype)
    assert {parameter.dtype for parameter in layer.parameters()} == {dtype}
    out = layer(torch.randn(1, 4, 5, 5, dtype=dtype))
    assert out.dtype == dtype
    assert out.isfinite().all()


def test_parameters_are_made_on_the_device_that_is_asked_for() -> None:
    layer = LocalAttention2d(4, 8, 3, stride=2, num_heads=2, device="meta")
    assert {parameter.device.type for parameter in layer.parameters()} == {"meta"}
    assert layer(torch.empty(1, 4, 5, 5, device="meta")).shape == (1, 8, 3, 3)
    made = layer.to_empty(device="cpu")
    made.reset_parameters()
    assert made(torch.randn(1, 4, 5, 5)).isfinite().all()


def test_the_representation_shows_what_differs_from_the_defaults() -> None:
    assert LocalAttention2d(8, 16).extra_repr() == "8, 16, kernel_size=(7, 7), num_heads=8"
    layer = LocalAttention2d(
        8, 16, (3, 5), 2, (1, 3), 4, "relative", False, "zeros", False, 0.5, True, "reference"
    )  # fmt: skip
    assert layer.extra_repr() == (
        "8, 16, kernel_size=(3, 5), stride=(2, 2), dilation=(1, 3), num_heads=4, content=False, "
        "border='zeros', shared_tables=False, scale=0.5, backend='reference', bias=True"
    )
    assert repr(LocalAttention2d(8, 16, position="none")).startswith("LocalAttention2d(\n  8, 16, ")


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"in_channels": 0}, r"in_channels must be an integer >= 1; got 0\."),
        ({"in_channels": 2.0}, r"in_channels must be an integer >= 1; got 2\.0\."),
        ({"out_channels": -8}, r"out_channels must be an integer >= 1; got -8\."),
        ({"out_channels": True}, r"out_channels must be an integer >= 1; got True\."),
        ({"num_heads": 0}, r"num_heads must be an integer >= 1; got 0\."),
        ({"num_heads": 5}, r"num_heads must divide out_channels \(16\); got 5\.\nhint: try num_heads=4\."),
        ({"num_heads": 16}, r"out_channels / num_heads must be even.*; got 1\.\nhint: change num_heads"),
        ({"kernel_size": 4}, r"kernel_size must be odd, because .*; got 4\.\nhint: try 5\."),
        ({"kernel_size": (3, 2)}, r"kernel_size must be odd.*; got \(3, 2\)\.\nhint: try 3\."),
        ({"kernel_size": 0}, r"kernel_size must be an integer >= 1, or a pair"),
        ({"stride": 0}, r"stride must be an integer >= 1, or a pair \(vertical, horizontal\).*; got 0\."),
        ({"stride": (1, 2, 3)}, r"stride must be an integer >= 1, or a pair"),
        ({"dilation": 1.5}, r"dilation must be an integer >= 1, or a pair.*; got 1\.5\."),
        (
            {"position": "relativ"},
            r"position must be known; got 'relativ'\.\nhint: did you mean 'relative'\?",
        ),
        ({"position": None}, r"position must be known; got None\.\nhint: did you mean 'none'\?"),
        ({"border": "reflect"}, r"border must be 'mask' or 'zeros'; got 'reflect'\."),
        (
            {"content": False, "position": "none"},
            r"content=False needs position='relative'.*position='none'\.",
        ),
        ({"content": False, "position": "absolute"}, r"content=False needs position='relative'"),
        ({"scale": 0.0}, r"scale must be a finite number other than 0; got 0\.0\.\nhint: try 1\.0"),
        ({"scale": math.inf}, r"scale must be a finite number other than 0; got inf\."),
        ({"scale": math.nan}, r"scale must be a finite number other than 0; got nan\."),
        ({"scale": "1"}, r"scale must be a finite number other than 0; got '1'\."),
    ],
)
def test_options_that_cannot_be_used_are_named(options: dict, words: str) -> None:
    with pytest.raises(ArgumentError, match=f"LocalAttention2d: {words}"):
        LocalAttention2d(**{"in_channels": 8, "out_channels": 16, **options})


def test_an_unknown_backend_is_refused_when_the_layer_is_made() -> None:
    with pytest.raises(UnknownBackendError, match="LocalAttention2d: backend must be known; got 'blockd'"):
        LocalAttention2d(8, 16, backend="blockd")


def test_odd_heads_are_fine_without_tables() -> None:
    layer = LocalAttention2d(6, 6, 3, num_heads=2, position="none")
    assert layer.head_dim == 3
    assert layer(torch.randn(1, 6, 4, 4)).shape == (1, 6, 4, 4)


def test_it_trains_as_any_layer() -> None:
    """A few steps bring a layer to a target that another made."""
    target, layer = (LocalAttention2d(4, 8, 3, num_heads=2) for _ in range(2))
    x = torch.randn(4, 4, 6, 6)
    wanted = target(x).detach()
    optimizer = torch.optim.Adam(layer.parameters(), 0.05)

    def loss() -> Tensor:
        return nn.functional.mse_loss(layer(x), wanted)

    first = loss().item()
    for _ in range(60):
        optimizer.zero_grad()
        current = loss()
        current.backward()
        optimizer.step()
    assert loss().item() < 0.3 * first
