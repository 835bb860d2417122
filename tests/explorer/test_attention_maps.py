"""Attention maps: the layers' own weights, laid out on the image they were taken from."""

import numpy as np
import pytest
import torch
from torch import nn

from lookaround import AttentionStem, LocalAttention2d, create_model
from lookaround.errors import ArgumentError
from lookaround.explorer import LayerMaps, attention_maps

TINY = {"width": 0.25, "num_classes": 2, "kernel_size": 3, "in_channels": 1}


@pytest.mark.parametrize("border", ["mask", "zeros"])
def test_weights_of_every_layer_sum_to_one(border: str) -> None:
    model = create_model("sasa_resnet14_small", border=border, **TINY)
    maps = attention_maps(model, torch.randn(2, 1, 10, 13))
    names = ["stem", *(f"layer{stage}.0.spatial" for stage in (1, 2, 3, 4))]
    assert [layer.name for layer in maps] == names
    sizes = [(10, 13, 4, 7, 7), (10, 13, 8, 3, 3), (10, 13, 8, 3, 3), (5, 7, 8, 3, 3), (3, 4, 8, 3, 3)]
    for layer, size in zip(maps, sizes, strict=True):
        assert layer.weights.shape == (2, *size)
        assert layer.weights.dtype == np.float32
        assert layer.weights.min() >= 0
        np.testing.assert_allclose(layer.weights.sum((-1, -2)), 1, rtol=1e-5)


def test_weights_are_those_of_the_layer() -> None:
    layer, x = LocalAttention2d(2, 8, (5, 3), dilation=(1, 2), num_heads=2), torch.randn(1, 2, 6, 7)
    (maps,) = attention_maps(layer, x)
    assert (maps.name, maps.dilation) == ("", (1, 2))
    np.testing.assert_array_equal(maps.weights, layer.attention_weights(x).detach().numpy())


class Masked(nn.Module):
    """Hides the right half of its images from its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = LocalAttention2d(2, 8, 3, num_heads=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(x.shape[0], *x.shape[2:], dtype=torch.bool)
        mask[..., 3:] = True
        return self.attention(x=x, key_padding_mask=mask)


def test_padding_is_hidden_from_the_maps_too() -> None:
    (maps,) = attention_maps(Masked(), torch.randn(1, 2, 4, 6))
    assert maps.name == "attention"
    assert maps.on_image(0, 0, 1, 2)[:, 3:].max() == 0
    assert maps.weights[:, :, 3:].max() == 0


def blocks_on_image(stem: AttentionStem, x: torch.Tensor, head: int, row: int, column: int) -> np.ndarray:
    """Lay the stem's own weights of one query out, block by block."""
    size = stem.block_size
    weights = stem.attention_weights(x)[
        0, row // size, column // size, head, row % size * size + column % size
    ]
    out = np.zeros(x.shape[2:], np.float32)
    top, left = row - row % size, column - column % size
    for place, weight in enumerate(weights.tolist()):
        y, x_ = top + place // size, left + place % size
        if y < out.shape[0] and x_ < out.shape[1]:
            out[y, x_] = weight
    return out


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(8, 8), (6, 9)])
@pytest.mark.parametrize("values", ["spatially_aware", "plain", "convolution"])
def test_windows_of_the_stem_hold_the_block_of_the_query(values: str, height: int, width: int) -> None:
    stem, x = AttentionStem(2, 8, 2, values=values), torch.randn(1, 2, height, width)
    (maps,) = attention_maps(stem, x)
    assert maps.weights.shape == (1, height, width, 2, 7, 7)
    for row, column, head in np.ndindex(height, width, 2):
        expected = blocks_on_image(stem, x, head, row, column)
        np.testing.assert_array_equal(maps.on_image(0, head, row, column), expected)


def test_a_window_is_laid_out_around_its_query() -> None:
    weights = np.zeros((1, 4, 6, 1, 3, 3), np.float32)
    weights[0, 1, 2, 0] = np.arange(1, 10).reshape(3, 3)
    image = LayerMaps("layer", weights, (1, 2)).on_image(0, 0, 1, 2)
    expected = np.zeros((4, 6), np.float32)
    expected[0:3, 0:6:2] = np.arange(1, 10).reshape(3, 3)
    np.testing.assert_array_equal(image, expected)


def test_what_lies_outside_of_the_image_is_left_out() -> None:
    weights = np.ones((1, 2, 2, 1, 5, 5), np.float32)
    maps = LayerMaps("layer", weights, (1, 1))
    np.testing.assert_array_equal(maps.on_image(0, 0, 0, 0), np.ones((2, 2)))
    wide = LayerMaps("layer", weights, (3, 3))
    np.testing.assert_array_equal(wide.on_image(0, 0, 0, 1), [[0, 1], [0, 0]])


def test_the_map_of_a_model_that_attends_to_the_image_is_found_on_the_image() -> None:
    """Taking the maps from a query by hand gives the layer's own output."""
    layer, x = LocalAttention2d(1, 2, 3, num_heads=1), torch.randn(1, 1, 4, 5)
    (maps,) = attention_maps(layer, x)
    values = (x.permute(0, 2, 3, 1) @ layer.projection.weight[4:].T)[0].detach()
    out = layer(x)[0].detach()
    for row, column in np.ndindex(4, 5):
        weights = torch.from_numpy(maps.on_image(0, 0, row, column))
        summed = (weights[..., None] * values).sum((0, 1))
        torch.testing.assert_close(summed, out[:, row, column])


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training: bool) -> None:
    model = create_model("sasa_resnet14_convstem_small", drop_path=0.5, **TINY).train(training)
    model.layer2.eval()  # frozen by whoever trains
    modes = {name: module.training for name, module in model.named_modules()}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(2, 1, 8, 8)
    first, second = attention_maps(model, x), attention_maps(model, x)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.weights, other.weights)  # nothing is dropped
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


class Failing(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        super().forward(x)
        raise KeyError("no such thing")


def test_the_model_is_left_as_it_was_when_it_fails() -> None:
    model = Failing(LocalAttention2d(1, 2, 3, num_heads=1))
    with pytest.raises(KeyError):
        attention_maps(model, torch.randn(1, 1, 4, 4))
    assert all(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_half_precision_is_shown_as_float32() -> None:
    layer = LocalAttention2d(1, 2, 3, num_heads=1).bfloat16()
    (maps,) = attention_maps(layer, torch.randn(1, 1, 4, 4).bfloat16())
    assert maps.weights.dtype == np.float32
    np.testing.assert_allclose(maps.weights.sum((-1, -2)), 1, rtol=1e-5)


@pytest.mark.parametrize("model", [nn.Conv2d(1, 1, 1), nn.Sequential()])
def test_a_model_without_attention_is_refused(model: nn.Module) -> None:
    must = (
        r"attention_maps: model must hold a LocalAttention2d or an AttentionStem; got (Conv2d|Sequential)\."
    )
    with pytest.raises(ArgumentError, match=must):
        attention_maps(model, torch.randn(1, 1, 4, 4))
