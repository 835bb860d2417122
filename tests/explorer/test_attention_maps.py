"""Attention maps: the layers' own weights, laid out on the image they were taken from."""

import numpy as np
import pytest
import torch
from torch import nn

from lookaround import AttentionStem, LocalAttention2d, create_model
from lookaround.errors import ArgumentError, UnknownNameError
from lookaround.explorer import LayerMaps, attention_maps, attention_of_pixels, window_weights
from lookaround.models import fuse

TINY = {"width": 0.25, "num_classes": 2, "kernel_size": 3, "in_channels": 1}


@pytest.mark.parametrize("border", ["mask", "zeros"])
def test_weights_of_every_layer_sum_to_one_within_the_image(border: str) -> None:
    model = create_model("sasa_resnet14_small", border=border, **TINY)
    maps = attention_maps(model, torch.randn(2, 1, 10, 13))
    names = ["stem", *(f"layer{stage}.0.spatial" for stage in (1, 2, 3, 4))]
    assert [layer.name for layer in maps] == names
    sizes = [(10, 13, 4, 7, 7), (10, 13, 8, 3, 3), (10, 13, 8, 3, 3), (5, 7, 8, 3, 3), (3, 4, 8, 3, 3)]
    for layer, size in zip(maps, sizes, strict=True):
        assert layer.weights.shape == (2, *size)
        assert layer.weights.dtype == np.float32
        assert layer.weights.min() >= 0
        whole = layer.weights.sum((-1, -2))
        if border == "mask" or layer.name == "stem":
            np.testing.assert_allclose(whole, 1, rtol=1e-5)
        else:  # the rest is spent on what lies beyond the image
            np.testing.assert_allclose(whole[:, 1:-1, 1:-1], 1, rtol=1e-5)
            assert (whole[:, 0] < 1).all()
        assert layer.stride == (-(-10 // layer.weights.shape[1]), -(-10 // layer.weights.shape[1]))


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


@pytest.mark.parametrize("position", ["relative", "absolute"])
@pytest.mark.parametrize("border", ["mask", "zeros"])
def test_weights_of_a_few_pixels_are_those_of_all(border: str, position: str) -> None:
    model = create_model("sasa_resnet14_small", border=border, position=position, **TINY)
    x, pixels = torch.randn(2, 1, 10, 13), [(0, 0), (9, 12), (4, 7)]
    for whole, few in zip(attention_maps(model, x), attention_of_pixels(model, x, pixels), strict=True):
        assert (few.name, few.call, few.stride, few.dilation) == (whole.name, 0, whole.stride, (1, 1))
        assert few.size == whole.weights.shape[1:3]
        for query, (row, column) in enumerate(pixels):
            above = (row // few.stride[0], column // few.stride[1])
            assert tuple(few.queries[query]) == above
            np.testing.assert_allclose(few.weights[:, query], whole.weights[:, *above], rtol=2e-5, atol=1e-7)
            laid_out = few.on_image(1, query, 1)
            np.testing.assert_allclose(laid_out, whole.on_image(1, 1, *above), rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("kernel_size", [3, (5, 1)])
def test_weights_computed_in_bands_are_those_computed_at_once(kernel_size, monkeypatch) -> None:
    layer = LocalAttention2d(2, 4, kernel_size, dilation=2, num_heads=2)
    model, x = nn.Sequential(AttentionStem(1, 2, 1, pool=1), layer), torch.randn(1, 1, 11, 7)
    at_once = attention_maps(model, x)
    monkeypatch.setattr(window_weights, "BAND_BYTES", 1)
    for one, other in zip(at_once, attention_maps(model, x), strict=True):
        np.testing.assert_allclose(one.weights, other.weights, rtol=2e-5, atol=1e-7)


def test_layers_are_chosen_by_name_or_pattern() -> None:
    model = create_model("sasa_resnet14_convstem_small", **TINY)
    x = torch.randn(1, 1, 8, 8)
    found = attention_maps(model, x, layers=["layer3.*", "layer1.0.spatial"])
    assert [layer.name for layer in found] == ["layer1.0.spatial", "layer3.0.spatial"]
    must = (
        r"attention_maps: layers must be names or patterns .*; got 'layer5\.\*'\.\nhint: .*layer1\.0\.spatial"
    )
    with pytest.raises(UnknownNameError, match=must):
        attention_maps(model, x, layers=["layer5.*"])


DETECTOR = {"width": 0.25, "pyramid_channels": 8, "num_heads": 2, "kernel_size": 3, "head_depth": 1}


def test_maps_of_a_detector_are_those_of_its_images_alone() -> None:
    """Layers of the heads are called once a level; nothing looks at padding or from it."""
    model = create_model("sasa_retinanet_resnet14_small", num_classes=2, **DETECTOR)
    images = [torch.randn(3, 64, 32), torch.randn(3, 32, 64)]
    together, alone = attention_maps(model, images), attention_maps(model, images[:1])
    names = [(layer.name, layer.call) for layer in together]
    assert ("backbone.pyramid.spatial.0", 0) in names
    assert [name for name in names if name[0] == "head.boxes.last"] == [
        ("head.boxes.last", i) for i in range(3)
    ]
    assert "stem" in {name.rpartition(".")[2] for name, _ in names}
    for both, single in zip(together, alone, strict=True):
        height, width = single.weights.shape[1:3]
        assert both.weights.shape[1:3] == (height, 2 * width)
        assert both.stride == single.stride == (64 // height, 64 // height)
        np.testing.assert_allclose(both.weights[0, :, :width], single.weights[0], rtol=1e-4, atol=1e-6)
        assert (both.weights[0, :, width:] == 0).all()
        assert (both.weights[1, height // 2 :] == 0).all()
        if height > 2:  # the last row of the lower image sees no row below it
            assert (both.weights[1, height // 2 - 1, :, :, both.weights.shape[-2] // 2 + 1 :] == 0).all()


@torch.no_grad()
def test_a_padded_pixel_is_not_looked_at_under_either_border() -> None:
    class Padded(nn.Module):
        def __init__(self, border: str) -> None:
            super().__init__()
            self.layer = LocalAttention2d(1, 2, 3, num_heads=1, border=border)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mask = torch.zeros(1, 4, 4, dtype=torch.bool)
            mask[:, :, 2:] = True
            return self.layer(x, key_padding_mask=mask)

    for border in ("mask", "zeros"):
        (maps,) = attention_maps(Padded(border), torch.randn(1, 1, 4, 4))
        assert (maps.weights[0, :, 1, :, :, 2] == 0).all()
        assert (maps.weights[0, :, 2:] == 0).all()
        assert (maps.weights[0, :, :2] > 0).any((-1, -2)).all()


def test_a_fused_network_looks_where_it_did() -> None:
    model = create_model("sasa_resnet14_small", **TINY).eval()
    x = torch.randn(1, 1, 8, 8)
    for one, other in zip(attention_maps(model, x), attention_maps(fuse(model), x), strict=True):
        assert one.name == other.name
        np.testing.assert_allclose(one.weights, other.weights, rtol=1e-4, atol=1e-6)


class Compiled(nn.Module):
    """Holds a model as what `torch.compile` returns does, and hides its layers from hooks."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._orig_mod = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("a compiled graph calls no hooks")


def test_a_compiled_model_is_looked_at_as_it_was() -> None:
    model = Compiled(nn.Sequential(LocalAttention2d(1, 2, 3, num_heads=1)))
    (maps,) = attention_maps(model, torch.randn(1, 1, 4, 4))
    assert maps.name == "0"


class Idle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = LocalAttention2d(1, 2, 3, num_heads=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_a_model_that_runs_no_attention_is_refused() -> None:
    must = (
        r"attention_maps: model must run its attention layers when it is called; got Idle, which ran none\."
    )
    with pytest.raises(ArgumentError, match=must):
        attention_maps(Idle(), torch.randn(1, 1, 4, 4))


def test_no_images_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"attention_maps: images must be one or more; got 0\."):
        attention_maps(Idle(), torch.zeros(0, 1, 4, 4))


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        ([], r"pixels must be one or more; got none\."),
        ([(0, 4)], r"pixels must lie within the images of 4 rows and 4 columns; got \(0, 4\)\."),
        ([(0, 0), (-1, 0)], r"pixels must lie within .*; got \(-1, 0\)\."),
    ],
)
def test_pixels_that_are_not_there_are_refused(pixels: list, words: str) -> None:
    layer = LocalAttention2d(1, 2, 3, num_heads=1)
    with pytest.raises(ArgumentError, match=f"attention_of_pixels: {words}"):
        attention_of_pixels(layer, torch.zeros(1, 1, 4, 4), pixels)
