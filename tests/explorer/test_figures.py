"""The picture of attention maps: its size, what it shows, and what is refused."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lookaround import LocalAttention2d, create_model
from lookaround.errors import ArgumentError
from lookaround.explorer import (
    attention_distances,
    attention_of_pixels,
    attention_rollout,
    draw_attention_maps,
)
from lookaround.explorer.distance_figure import draw_distances
from lookaround.explorer.figures import draw_pixel_maps
from lookaround.explorer.panels import Place, as_picture
from lookaround.explorer.rollout_figure import draw_rollout


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(LocalAttention2d(1, 4, 3, num_heads=2), LocalAttention2d(4, 6, 3, 2, num_heads=3))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 1, 8, 6)


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"), np.float32)


def dots(height: float, width: float) -> object:
    """Expect a figure of so many inches, whichever way its size was rounded."""
    return pytest.approx((height * 120, width * 120), abs=1)


def test_a_png_has_a_row_for_each_layer_and_a_column_for_each_head(model, images, tmp_path) -> None:
    path = draw_attention_maps(model, images, tmp_path / "new" / "maps.png", titles=["one", "two"])
    assert path == tmp_path / "new" / "maps.png"
    assert os.listdir(path.parent) == ["maps.png"]
    array = pixels_of(path)
    assert array.shape[:2] == dots(2 * (2 * 1.1 * 1.04 + 0.5), 1.1 * (1 + 3) + 1.6)
    assert array.std() > 10
    assert path.stat().st_size < 1_000_000


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_images_of_any_channels_and_path_are_drawn(channels: int, tmp_path: Path) -> None:
    layer = LocalAttention2d(channels, 2, 3, num_heads=1)
    path = draw_attention_maps(layer, torch.randn(1, channels, 5, 5), str(tmp_path / "maps"))
    assert pixels_of(path).std() > 10


def test_a_network_with_an_attention_stem_is_drawn(tmp_path: Path) -> None:
    options = {"width": 0.25, "kernel_size": 3, "num_heads": 2, "num_classes": 2}
    model = create_model("sasa_resnet14_small", attention_stages=(2,), **options)
    path = draw_attention_maps(model, torch.randn(1, 3, 9, 9), tmp_path / "maps.png")
    assert pixels_of(path).shape[:2] == dots(2 * 1.1 * 1.04 + 0.5, 1.1 * (1 + 4) + 1.6)


def test_the_query_that_is_named_is_marked(model, images, tmp_path) -> None:
    drawn = [
        pixels_of(draw_attention_maps(model, images[:1], tmp_path / f"{place}.png", pixels=[place]))
        for place in ((0, 0), (7, 5))
    ]
    cyan = [(a[..., 0] < 100) & (a[..., 1] > 150) & (a[..., 2] > 150) for a in drawn]
    marked = [np.argwhere(found).mean(0) for found in cyan]
    assert (marked[0] < marked[1]).all()  # above, and to the left


def test_without_a_name_the_query_is_the_pixel_that_stands_out(model, images, tmp_path) -> None:
    images = torch.zeros(1, 1, 8, 6)
    images[0, 0, 5, 4] = 9.0
    own = draw_attention_maps(model, images, tmp_path / "own.png")
    named = draw_attention_maps(model, images, tmp_path / "named.png", pixels=[(5, 4)])
    assert own.read_bytes() == named.read_bytes()


def test_a_plain_image_is_drawn(model, tmp_path) -> None:
    path = draw_attention_maps(model, torch.zeros(1, 1, 4, 4), tmp_path / "maps.png")
    assert np.isfinite(pixels_of(path)).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"titles": ["one"]}, r"titles must be one for each of the 2 images; got 1\."),
        ({"titles": []}, r"titles must be one for each of the 2 images; got 0\."),
        ({"pixels": [(0, 0)] * 3}, r"pixels must be one for each of the 2 images; got 3\."),
        (
            {"pixels": [(0, 0), (8, 0)]},
            r"pixels must lie within the images of 8 rows and 6 columns; got \(8, 0\)",
        ),
        ({"pixels": [(0, -1), (0, 0)]}, r"pixels must lie within the images .*; got \(0, -1\)"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(
    model, images, tmp_path, arguments: dict, words: str
) -> None:
    with pytest.raises(ArgumentError, match=f"draw_attention_maps: {words}"):
        draw_attention_maps(model, images, tmp_path / "maps.png", **arguments)
    assert os.listdir(tmp_path) == []


def test_no_image_is_refused(model, tmp_path) -> None:
    with pytest.raises(ArgumentError, match=r"draw_attention_maps: images must be one or more; got 0\."):
        draw_attention_maps(model, torch.zeros(0, 1, 4, 4), tmp_path / "maps.png")


def test_a_model_without_attention_is_refused(images, tmp_path) -> None:
    with pytest.raises(ArgumentError, match="draw_attention_maps: model must hold a LocalAttention2d"):
        draw_attention_maps(nn.Conv2d(1, 1, 1), images, tmp_path / "maps.png")


def test_a_failure_leaves_no_file(model, images, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="No space left"):
        draw_attention_maps(model, images, tmp_path / "maps.png")
    assert os.listdir(tmp_path) == []


def test_the_heads_of_one_layer_go_over_several_rows(images, tmp_path) -> None:
    layer = LocalAttention2d(1, 16, 3, num_heads=8)
    maps = attention_of_pixels(layer, images[:1], [(2, 2)])
    shown = [(as_picture(images[0]), maps, "")]
    every = pixels_of(draw_pixel_maps(shown, tmp_path / "every.png"))
    two = pixels_of(draw_pixel_maps(shown, tmp_path / "two.png", heads=[0, 7]))
    assert every.shape[:2] == dots(3 * 2.0 * 1.04 + 0.5, 4 * 2.0 + 1.6)
    assert two.shape[:2] == dots(2.0 * 1.04 + 0.5, 3 * 2.0 + 1.6)
    assert two.std() > 10


def test_a_window_that_takes_little_of_the_picture_is_enlarged() -> None:
    place = Place.of((10, 20), (7, 3), (1, 2), (2, 2))
    assert place.query == (40, 20, 2, 2)
    assert place.window == (36, 14, 10, 14)
    assert place.limits(100, 100) == ((33.5, 48.5), (31.5, 10.5))
    across, down = place.limits(28, 100)  # as high as half of the picture
    assert across[0] < 0 < 100 < across[1]
    assert down[1] < 0 < 28 < down[0]
    assert Place.of((0, 0), (7, 3), (1, 1), (1, 1)).limits(100, 100)[0][0] == 0  # not beyond the border


def test_a_rollout_has_a_row_for_each_query_and_a_column_for_each_map(tmp_path) -> None:
    model = create_model("sasa_resnet14_small", width=0.25, kernel_size=3, num_heads=2, in_channels=1)
    image, queries = torch.randn(1, 1, 8, 8), [(1, 2), None]
    rollouts = attention_rollout(model, image, queries, layers=["stem", "layer2", "layer4"])
    path = draw_rollout(as_picture(image[0]), rollouts, queries, tmp_path / "rollout.png", title="an image")
    array = pixels_of(path)
    assert array.shape[:2] == dots(1.5 * 1.12 * 2 + 0.55, 1.5 * 4 + 1.4)
    assert array.std() > 10
    assert os.listdir(tmp_path) == ["rollout.png"]


def test_distances_are_drawn_for_each_layer(model, images, tmp_path) -> None:
    path = draw_distances(attention_distances(model, images), tmp_path / "distances.png", title="two layers")
    array = pixels_of(path)
    red = (array[..., 0] > 150) & (array[..., 1] < 60) & (array[..., 2] < 80)
    assert array.shape[:2] == dots(4.6, 9.2)
    assert red.sum() > 100
    assert os.listdir(tmp_path) == ["distances.png"]
