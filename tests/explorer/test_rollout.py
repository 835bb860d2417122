"""Attention rollout: dense matrices, receptive fields by gradients, padding, and what is refused."""

import numpy as np
import pytest
import torch
from torch import nn

from lookaround import LocalAttention2d, create_model
from lookaround.errors import ArgumentError, UnknownNameError
from lookaround.explorer import attention_maps, attention_rollout
from lookaround.models import fuse

TINY = {"width": 0.25, "num_classes": 2, "kernel_size": 3, "in_channels": 1, "num_heads": 2}
DETECTOR = {"width": 0.25, "num_classes": 2, "kernel_size": 3, "num_heads": 2, "pyramid_channels": 8}


def lively(model: nn.Module) -> nn.Module:
    """Let every branch of every block count; they begin as the identity."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.bias, 0.0, 0.5)
    return model.eval()


def dense(maps) -> np.ndarray:
    """Write the mean of a layer's heads as a matrix: from pixels, to pixels."""
    _, height, width, heads = maps.weights.shape[:4]
    rows = [
        np.mean([maps.on_image(0, head, row, column) for head in range(heads)], 0).ravel()
        for row, column in np.ndindex(height, width)
    ]
    return np.stack(rows)


def strided(size: int, average: bool) -> np.ndarray:
    """Write a stride of 2 as a matrix: the mean of 2 x 2 pixels, or the first of them."""
    small = size // 2
    out = np.zeros((small, small, size, size))
    for row, column in np.ndindex(small, small):
        if average:
            out[row, column, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 0.25
        else:
            out[row, column, 2 * row, 2 * column] = 1
    return out.reshape(small * small, size * size)


@pytest.mark.parametrize("residual", [0.5, 0.2])
def test_the_rollout_is_the_product_of_the_layers_matrices(residual: float) -> None:
    model, x = create_model("sasa_resnet14_small", **TINY), torch.randn(1, 1, 8, 8)
    stem, *layers = attention_maps(model, x)
    product, pixels = dense(stem), [(0, 0), (5, 6), None]
    rollouts = attention_rollout(
        model, x, pixels, layers=["layer1", "layer2", "layer3", "layer4"], residual=residual
    )
    for index, (layer, found) in enumerate(zip(layers, rollouts, strict=True)):
        attended, shortcut = dense(layer), np.eye(len(dense(layer)))
        if index > 0:
            size = layer.weights.shape[1]
            attended, shortcut = strided(size, True) @ attended, strided(size, False)
        product = ((1 - residual) * attended + residual * shortcut) @ product
        assert found.layer == f"layer{index + 1}.0"
        side = found.size[0]
        for query, pixel in enumerate(pixels):
            step = 8 // side
            place = 0 if pixel is None else pixel[0] // step * side + pixel[1] // step
            expected = product.mean(0) if pixel is None else product[place]
            np.testing.assert_allclose(found.shares[0, query].ravel(), expected, rtol=1e-4, atol=1e-7)


def gradient_reach(output: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Tell which pixels of the image an output depends on."""
    (gradient,) = torch.autograd.grad(output.abs().sum(), x, retain_graph=True)
    return gradient[0].abs().sum(0) > 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet14_small", {}),
        ("sasa_resnet14_convstem_small", {"small": False, "kernel_size": 5}),
        ("sasa_resnet14_small", {"small": False, "attention_stages": (2, 4)}),
        ("sasa_resnet14_small", {"stem_values": "convolution"}),
    ],
)
def test_a_pixel_is_reached_exactly_if_the_output_depends_on_it(name: str, options: dict) -> None:
    model = lively(create_model(name, **{**TINY, **options}))
    x = torch.randn(1, 1, 40, 27, requires_grad=True)
    features, layers = model.features(x), ["stem", "layer1", "layer2", "layer4"]
    for layer, found in zip(
        layers, attention_rollout(model, x.detach(), [(17, 9)], layers=layers), strict=True
    ):
        height, width = found.size
        assert features[layer].shape[-2:] == (height, width)
        stride = 2 ** round(np.log2(40 / height))
        reached = gradient_reach(features[layer][0, :, 17 // stride, 9 // stride], x)
        shares = torch.from_numpy(found.shares[0, 0])
        assert shares.sum() == pytest.approx(1, abs=1e-5)
        # Of ties at zero in a max-pooling behind a ReLU autograd knows nothing.
        assert not (reached & (shares == 0)).any()
        assert ((shares > 0) & ~reached).float().mean() < 0.02


@pytest.mark.parametrize("options", [{}, {"residual": False, "levels": (3, 4, 5, 6), "heads": "convolution"}])
def test_the_maps_of_a_detector_are_followed_through_pyramid_and_heads(options: dict) -> None:
    model = lively(create_model("sasa_retinanet_resnet14_convstem_small", **{**DETECTOR, **options}))
    x = torch.randn(1, 3, 64, 128, requires_grad=True)
    outputs, levels = model.network(x), model.config.levels
    places = [
        (name, key, level)
        for name, key in (("classes", "cls_logits"), ("boxes", "bbox_regression"))
        for level in (levels[0], levels[-1])
    ]
    layers = [f"{name}.p{level}" for name, _, level in places]
    rollouts = attention_rollout(model, x.detach(), [(50, 70)], layers=layers)
    for (_, key, level), found in zip(places, rollouts, strict=True):
        height, width = 64 // 2**level, 128 // 2**level
        assert found.size == (height, width)
        by_pixel = outputs[key][levels.index(level)].unflatten(1, (height * width, -1))
        reached = gradient_reach(by_pixel[0, (50 // 2**level) * width + 70 // 2**level], x)
        shares = torch.from_numpy(found.shares[0, 0])
        assert shares.sum() == pytest.approx(1, abs=1e-5)
        assert not (reached & (shares == 0)).any()
        assert ((shares > 0) & ~reached).float().mean() < 0.05


def test_an_image_of_a_padded_batch_has_the_rollout_that_it_has_alone() -> None:
    model = create_model("sasa_retinanet_resnet14_small", **DETECTOR)
    images, queries = [torch.randn(3, 32, 64), torch.randn(3, 64, 32)], [(20, 20), None]
    names = ["layer3", "p4", "classes.p3", "boxes.p5"]
    together = attention_rollout(model, images, queries, layers=names)
    alone = attention_rollout(model, images[:1], queries, layers=names)
    for both, one in zip(together, alone, strict=True):
        assert both.shares.shape == (2, 2, 64, 64)
        np.testing.assert_allclose(both.shares[0, :, :32], one.shares[0], rtol=1e-3, atol=1e-8)
        assert (both.shares[0, :, 32:] == 0).all()
        assert (both.shares[1, :, :, 32:] == 0).all()
        np.testing.assert_allclose(both.shares.sum((-1, -2)), 1, rtol=1e-4)


def test_what_is_spent_beyond_the_border_is_missing() -> None:
    x = torch.randn(1, 1, 8, 8)
    shares = {
        border: attention_rollout(create_model("sasa_resnet14_small", border=border, **TINY), x)[0].shares
        for border in ("mask", "zeros")
    }
    assert shares["mask"].sum() == pytest.approx(1, abs=1e-5)
    assert 0 < shares["zeros"].sum() < 0.9


def test_the_last_map_is_begun_at_if_none_is_named() -> None:
    model, x = create_model("sasa_resnet14_small", **TINY), torch.randn(1, 1, 8, 8)
    assert [found.layer for found in attention_rollout(model, x)] == ["layer4.0"]
    detector = create_model("sasa_retinanet_resnet14_small", **DETECTOR)
    assert [found.layer for found in attention_rollout(detector, torch.randn(1, 3, 32, 32))] == ["classes.p3"]


def test_without_attention_and_shortcut_nothing_but_the_shortcut_is_followed() -> None:
    model, x = create_model("sasa_resnet14_convstem_small", **TINY), torch.randn(1, 1, 8, 8)
    (found,) = attention_rollout(model, x, [(4, 4)], layers=["layer1"], residual=1.0)
    (stem,) = attention_rollout(model, x, [(4, 4)], layers=["stem"])
    np.testing.assert_array_equal(found.shares, stem.shares)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"residual": 1.5}, ArgumentError, r"residual must be from 0 to 1; got 1\.5\."),
        ({"pixels": []}, ArgumentError, r"pixels must be one or more; got none\."),
        ({"pixels": [None, (8, 0)]}, ArgumentError, r"pixels must lie within .*; got \(8, 0\)\."),
        ({"layers": ["layer3.1"]}, UnknownNameError, r"layers must be maps of the model; got 'layer3\.1'\."),
        (
            {"layers": ["p3"]},
            UnknownNameError,
            r"layers must be maps of the model; got 'p3'\.\nhint: .*layer4\.0",
        ),
    ],
)
def test_arguments_that_cannot_be_used_are_named(arguments: dict, error: type, words: str) -> None:
    model = create_model("sasa_resnet14_small", **TINY)
    with pytest.raises(error, match=f"attention_rollout: {words}"):
        attention_rollout(model, torch.randn(1, 1, 8, 8), **arguments)


def test_networks_of_another_make_are_refused() -> None:
    must = "attention_rollout: model must be a network of create_model, not fused and not wrapped; got {}"
    x = torch.randn(1, 1, 8, 8)
    with pytest.raises(ArgumentError, match=must.format("LocalAttention2d")):
        attention_rollout(LocalAttention2d(1, 2, 3, num_heads=1), x)
    with pytest.raises(ArgumentError, match=must.format("ResNet")):
        attention_rollout(fuse(create_model("sasa_resnet14_small", **TINY).eval()), x)
