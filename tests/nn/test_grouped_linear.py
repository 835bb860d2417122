"""Grouped projections: each head from its own channels, and otherwise the layer as it is."""

import pytest
import torch
from torch import nn

from lookaround.errors import ArgumentError
from lookaround.nn import LocalAttention2d
from lookaround.nn.fusion import fuse_attention_bn_eval
from lookaround.nn.grouped_linear import GroupedLinear


def test_each_group_is_a_map_of_its_own() -> None:
    linear = GroupedLinear(6, 16, groups=2, maps=2, bias=True)
    nn.init.normal_(linear.bias)
    x = torch.randn(5, 6)
    # map, group, outputs of a group, inputs of a group
    weight, bias = linear.weight.view(2, 2, 4, 3), linear.bias.view(2, 2, 4)
    groups = x.view(5, 2, 3)
    wanted = [groups[:, g] @ weight[m, g].T + bias[m, g] for m in range(2) for g in range(2)]
    torch.testing.assert_close(linear(x), torch.cat(wanted, dim=-1))
    assert "groups=2, maps=2, bias=True" in repr(linear)


@pytest.mark.parametrize(
    "options", [{}, {"content": False}, {"position": "none"}, {"bias": True}, {"stride": 2}]
)
def test_a_grouped_layer_is_the_full_one_with_zeros_between_the_groups(options: dict) -> None:
    grouped = LocalAttention2d(8, 16, 3, num_heads=4, projection_kind="grouped", **options)
    full = LocalAttention2d(8, 16, 3, num_heads=4, **options)
    state = grouped.state_dict()
    assert state["projection.weight"].shape == (full.projection.weight.shape[0], 2)
    state["projection.weight"] = grouped.projection.full_weight()
    full.load_state_dict(state)
    x = torch.randn(2, 8, 6, 7)
    torch.testing.assert_close(grouped(x), full(x))
    torch.testing.assert_close(grouped.attention_weights(x), full.attention_weights(x))


def test_a_head_sees_its_own_channels_alone() -> None:
    layer = LocalAttention2d(8, 8, 3, num_heads=4, projection_kind="grouped")
    x = torch.randn(1, 8, 5, 5, requires_grad=True)
    layer(x)[:, 2:4].sum().backward()  # the second head
    seen = x.grad.abs().sum(dim=(0, 2, 3)) > 0
    assert seen.tolist() == [False, False, True, True, False, False, False, False]


def test_gradients_are_right() -> None:
    layer = LocalAttention2d(4, 4, 3, num_heads=2, projection_kind="grouped", dtype=torch.float64)
    x = torch.randn(1, 4, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = layer.projection.weight.detach().clone().requires_grad_()

    def run(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"projection.weight": weight}, (x,))

    assert torch.autograd.gradcheck(run, (x, weight))


def test_initial_logits_have_the_same_spread_as_those_of_full_projections() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 64, 8, 8)
    spreads = []
    for kind in ("full", "grouped"):
        layer = LocalAttention2d(64, 64, 3, num_heads=8, projection_kind=kind)
        query, key = layer._project(x)[..., 0, :, :], layer._project(x)[..., 1, :, :]
        spreads.append((query * key).sum(-1).std().item())
    assert spreads[1] == pytest.approx(spreads[0], rel=0.2)


def test_a_batch_norm_folds_into_it() -> None:
    layer = LocalAttention2d(8, 8, 3, num_heads=2, projection_kind="grouped").eval()
    norm = nn.BatchNorm2d(8).eval()
    nn.init.uniform_(norm.weight, 0.5, 2.0)
    norm.running_mean.normal_()
    x = torch.randn(1, 8, 5, 5)
    with torch.no_grad():
        fused = fuse_attention_bn_eval(layer, norm, relu=False)
        torch.testing.assert_close(fused(x), norm(layer(x)))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ArgumentError, match="projection_kind must be known; got 'groups'"):
        LocalAttention2d(16, 16, projection_kind="groups")


def test_heads_that_do_not_divide_the_input_are_refused() -> None:
    match = r"num_heads must divide in_channels \(6\) of grouped projections; got 4"
    with pytest.raises(ArgumentError, match=match):
        LocalAttention2d(6, 8, num_heads=4, projection_kind="grouped")
