"""Pictures of where a network looks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from lookaround.errors import ArgumentError, message
from lookaround.explorer.attention_maps import LayerMaps, attention_maps
from lookaround.training.files import replacing

QUERY_COLOUR = "#00e5ff"


def draw_attention_maps(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    path: str | Path,
    *,
    titles: Sequence[str] | None = None,
    pixels: Sequence[tuple[int, int]] | None = None,
) -> Path:
    """Draw for each image where each head of each attention layer looks from one pixel, and save it as PNG.

    A row is a layer, a column is a head. The brighter a pixel, the more weight the query pixel (marked by a
    square) gives it; a pixel of a deeper layer covers several of the image's.

    Args:
        model: a network with attention layers.
        images: a few images as the model takes them (normalised).
        path: where the picture goes; it is written whole or not at all.
        titles: one for each image.
        pixels: (row, column) of the query in each image; the pixel farthest from the mean colour when None.

    Raises:
        ArgumentError: the model has no attention layer, there is no image, titles or pixels are not one for
            each image, or a pixel lies outside of them.
    """
    from matplotlib.figure import Figure

    _check_arguments(images, titles, pixels)
    maps = attention_maps(model, images)
    shown = [_as_picture(image) for image in images]
    chosen = pixels if pixels is not None else [_most_salient(picture) for picture in shown]
    heads = max(layer.weights.shape[3] for layer in maps)
    size = (1.0 * (heads + 1) + 1.2, len(images) * (1.0 * len(maps) + 0.45))
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    parts = figure.subfigures(len(images), 1, squeeze=False)[:, 0]
    for index, part in enumerate(parts):
        if titles is not None:
            part.suptitle(titles[index], fontsize=10)
        _draw_image(part, maps, index, shown[index], chosen[index])
    return _save(figure, Path(path))


def _check_arguments(
    images: Tensor, titles: Sequence[str] | None, pixels: Sequence[tuple[int, int]] | None
) -> None:
    where = "draw_attention_maps"
    if len(images) == 0:
        raise ArgumentError(message(where, "images must be one or more", len(images)))
    for name, given in (("titles", titles), ("pixels", pixels)):
        if given is not None and len(given) != len(images):
            must = f"{name} must be one for each of the {len(images)} images"
            raise ArgumentError(message(where, must, len(given)))
    height, width = images.shape[-2:]
    for row, column in pixels if pixels is not None else ():
        if not (0 <= row < height and 0 <= column < width):
            must = f"pixels must lie within the images of {height} rows and {width} columns"
            raise ArgumentError(message(where, must, (row, column)))


def _draw_image(
    part: Any, maps: list[LayerMaps], index: int, picture: np.ndarray, pixel: tuple[int, int]
) -> None:
    heads = max(layer.weights.shape[3] for layer in maps)
    grid = part.subplots(len(maps), heads + 1, squeeze=False)
    for axis in grid.flat:
        axis.set_axis_off()
    for line, layer in enumerate(maps):
        height, width = layer.weights.shape[1:3]
        row, column = pixel[0] * height // picture.shape[0], pixel[1] * width // picture.shape[1]
        first = grid[line, 0]
        first.set_axis_on()
        first.set(xticks=[], yticks=[])
        first.set_ylabel(f"{layer.name}\n{height}x{width}", fontsize=6)
        _show(first, picture, None, (row, column), (height, width))
        for head in range(layer.weights.shape[3]):
            weights = layer.on_image(index, head, row, column)
            _show(grid[line, head + 1], picture, weights, (row, column), (height, width))
            if line == 0:
                grid[line, head + 1].set_title(f"head {head + 1}", fontsize=7)


def _show(
    axis: Any,
    picture: np.ndarray,
    weights: np.ndarray | None,
    query: tuple[int, int],
    map_size: tuple[int, int],
) -> None:
    from matplotlib.patches import Rectangle

    height, width = picture.shape[:2]
    extent = (0, width, height, 0)
    axis.imshow(picture, extent=extent, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    if weights is not None:
        strength = weights / max(float(weights.max()), 1e-12)
        axis.imshow(picture * 0, extent=extent, cmap="gray", vmin=0, vmax=1, alpha=0.55)
        opacity = 0.85 * strength**0.7
        axis.imshow(strength, extent=extent, cmap="inferno", alpha=opacity, interpolation="nearest")
    step_y, step_x = height / map_size[0], width / map_size[1]
    corner = (query[1] * step_x, query[0] * step_y)
    axis.add_patch(Rectangle(corner, step_x, step_y, fill=False, edgecolor=QUERY_COLOUR, linewidth=1))
    axis.set(xlim=(0, width), ylim=(height, 0))


def _as_picture(image: Tensor) -> np.ndarray:
    """Stretch a normalised image to 0..1: height width, or height width 3."""
    array = image.detach().float().cpu().numpy()
    low, high = array.min(), array.max()
    array = (array - low) / max(high - low, 1e-12)
    picture: np.ndarray = array.transpose(1, 2, 0) if array.shape[0] == 3 else array.mean(0)
    return picture


def _most_salient(picture: np.ndarray) -> tuple[int, int]:
    grey = picture if picture.ndim == 2 else picture.mean(-1)
    row, column = np.unravel_index(np.abs(grey - grey.mean()).argmax(), grey.shape)
    return int(row), int(column)


def _save(figure: Any, path: Path) -> Path:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
    return path
