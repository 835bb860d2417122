"""Distances of heads: known weights, loops, padding, and what is averaged."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from lookaround import AttentionStem, LocalAttention2d, create_model
from lookaround.errors import ArgumentError, UnknownNameError
from lookaround.explorer import attention_distances, attention_maps, window_weights
from lookaround.explorer.distance import mean_distances


def looking_by_rows(down: int) -> LocalAttention2d:
    """Every head looks `down` rows below, wherever there are so many."""
    layer = LocalAttention2d(1, 4, 5, num_heads=2, content=False, bias=True)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.projection.bias[:4] = 100.0
        layer.row_embedding[2 + down] = 1.0
    return layer


def by_loops(maps, image_step: int = 1) -> np.ndarray:
    """Average over queries the distance that each head's weights expect."""
    batch, height, width, heads, kernel_height, kernel_width = maps.weights.shape
    distances = [[] for _ in range(heads)]
    for image, row, column, head in np.ndindex(batch, height, width, heads):
        window = maps.weights[image, row, column, head].astype(np.float64)
        total = sum(
            window[i, j]
            * math.hypot(
                (i - kernel_height // 2) * maps.dilation[0], (j - kernel_width // 2) * maps.dilation[1]
            )
            for i in range(kernel_height)
            for j in range(kernel_width)
        )
        if window.sum() > 0:
            distances[head].append(total / window.sum())
    return np.array([np.mean(values) for values in distances]) * image_step


def test_a_head_that_looks_one_row_down_looks_one_pixel_far() -> None:
    model = nn.Sequential(nn.AvgPool2d(4), looking_by_rows(1))
    (layer,) = attention_distances(model, torch.randn(2, 1, 4 * 50, 4))
    assert (layer.name, layer.size, layer.stride) == ("1", (50, 1), (4, 4))
    # The last row sees none below, and weighs itself and the two above alike.
    assert layer.on_map == pytest.approx([1.0] * 2)
    assert layer.on_image == pytest.approx(4 * layer.on_map)
    assert layer.offset[:, 0] == pytest.approx([0.96] * 2)
    assert layer.offset[:, 1] == pytest.approx([0.0] * 2, abs=1e-6)
    assert layer.by_position == pytest.approx(layer.on_map)


@pytest.mark.parametrize("border", ["mask", "zeros"])
def test_distances_are_those_of_the_maps(border: str, monkeypatch) -> None:
    model = create_model("sasa_resnet14_small", width=0.25, kernel_size=3, in_channels=1, border=border)
    x = torch.randn(2, 1, 9, 6)
    monkeypatch.setattr(window_weights, "BAND_BYTES", 1)
    found = attention_distances(model, x)
    for layer, maps in zip(found, attention_maps(model, x), strict=True):
        assert layer.name == maps.name
        np.testing.assert_allclose(layer.on_map, by_loops(maps), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(layer.on_image, by_loops(maps, maps.stride[0]), rtol=1e-4, atol=1e-6)
        assert 0 <= layer.uniform <= math.hypot(3, 3)
    assert found[0].by_position is None  # the stem's logits know no positions


def test_dilated_windows_reach_farther() -> None:
    layer = LocalAttention2d(1, 4, 3, num_heads=1, dilation=(1, 3))
    x = torch.randn(1, 1, 12, 12)
    (found,) = attention_distances(layer, x)
    (maps,) = attention_maps(layer, x)
    np.testing.assert_allclose(found.on_map, by_loops(maps), rtol=1e-4)
    assert found.uniform > 1.5


def test_equal_weights_have_the_distance_that_is_called_uniform() -> None:
    layer = LocalAttention2d(1, 4, 5, num_heads=2)
    nn.init.zeros_(layer.projection.weight)
    stem = AttentionStem(1, 4, 2, pool=1)
    nn.init.zeros_(stem.query_weight)
    for module in (layer, stem):
        (found,) = attention_distances(module, torch.randn(1, 1, 6, 9))
        assert found.on_map == pytest.approx([found.uniform] * 2, rel=1e-5)


def test_position_alone_leaves_the_keys_out() -> None:
    layer = LocalAttention2d(3, 4, 5, num_heads=2)
    bare = LocalAttention2d(3, 4, 5, num_heads=2, content=False)
    with torch.no_grad():
        bare.projection.weight[:4] = layer.projection.weight[:4]
        bare.row_embedding.copy_(layer.row_embedding)
        bare.column_embedding.copy_(layer.column_embedding)
    x = torch.randn(1, 3, 7, 7)
    (found,), (expected,) = attention_distances(layer, x), attention_distances(bare, x)
    assert found.by_position == pytest.approx(expected.on_map, rel=1e-5)
    assert found.on_map != pytest.approx(expected.on_map, rel=1e-3)
    (none,) = attention_distances(LocalAttention2d(3, 4, 5, num_heads=2, position="none"), x)
    assert none.by_position is None


def test_padding_does_not_count() -> None:
    options = {"width": 0.25, "pyramid_channels": 8, "num_heads": 2, "kernel_size": 3, "head_depth": 1}
    model = create_model("sasa_retinanet_resnet14_small", num_classes=2, **options)
    image = torch.randn(3, 32, 64)
    alone = attention_distances(model, [image], layers=["backbone.body.*"])
    padded = attention_distances(model, [image, torch.zeros(3, 64, 64)], layers=["backbone.body.*"])
    zeros = attention_distances(model, [torch.zeros(3, 64, 64)], layers=["backbone.body.*"])
    for one, both, other in zip(alone, padded, zeros, strict=True):
        pixels = np.array([1, 2]) * one.size[0] * one.size[1]  # the second image is twice as high
        expected = (one.on_map * pixels[0] + other.on_map * pixels[1]) / pixels.sum()
        np.testing.assert_allclose(both.on_map, expected, rtol=1e-3, atol=1e-5)


def test_images_count_the_same_in_the_mean() -> None:
    layer, x = LocalAttention2d(1, 4, 3, num_heads=2), torch.randn(2, 1, 5, 5)
    (together,) = attention_distances(layer, x)
    (mean,) = mean_distances([attention_distances(layer, image[None]) for image in x])
    for name in ("on_map", "on_image", "offset", "by_position", "uniform"):
        np.testing.assert_allclose(getattr(mean, name), getattr(together, name), rtol=1e-5, atol=1e-6)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ArgumentError, match="attention_distances: model must hold a LocalAttention2d"):
        attention_distances(nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 4, 4))
    with pytest.raises(UnknownNameError, match="attention_distances: layers must be names or patterns"):
        attention_distances(nn.Sequential(AttentionStem(1, 4, 2)), torch.zeros(1, 1, 4, 4), layers=["x"])
