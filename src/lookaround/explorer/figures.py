"""Pictures of where a network looks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from lookaround.errors import ArgumentError, message
from lookaround.explorer.attention_maps import PixelMaps, Pixels, attention_of_pixels, check_pixels
from lookaround.explorer.panels import (
    DOTS_PER_INCH,
    Picture,
    Place,
    add_scale,
    as_picture,
    close_layout,
    mark,
    most_salient,
    save,
    show_picture,
    show_weights,
)
from lookaround.explorer.recording import choose_attention

CELL = 1.1  # inches a side of a panel; a layer alone has larger ones
LARGE_CELL = 2.0
SCALE_LABEL = "weight over the largest of the panel,\nwhich is written in its corner"


def draw_attention_maps(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    path: str | Path,
    *,
    titles: Sequence[str] | None = None,
    pixels: Pixels | None = None,
) -> Path:
    """Draw for each image where each head of each attention layer looks from one pixel, and save it as PNG.

    A row is a layer, a column is a head. The brighter a pixel, the more weight the query pixel (marked by a
    square) gives it; the dashed outline is its window. A pixel of a deeper layer covers several of the
    image's. Where the window takes little of the image, the panels show it enlarged.

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
    _check_arguments(images, titles, pixels)
    choose_attention("draw_attention_maps", model)
    shown = [as_picture(image) for image in images]
    chosen = list(pixels) if pixels is not None else [most_salient(picture) for picture in shown]
    maps = [
        attention_of_pixels(model, images[index : index + 1], [pixel]) for index, pixel in enumerate(chosen)
    ]
    names = titles if titles is not None else [""] * len(shown)
    return draw_pixel_maps(list(zip(shown, maps, names, strict=True)), path)


def draw_pixel_maps(
    images: Sequence[tuple[Picture, Sequence[PixelMaps], str]],
    path: str | Path,
    *,
    heads: Sequence[int] | None = None,
) -> Path:
    """Draw weights that have been computed, as `draw_attention_maps` does, and save them as PNG.

    Args:
        images: of each image a picture of 0..1, what `attention_of_pixels` returned of it for one pixel, and
            a title. The same layers for all.
        path: where the picture goes; it is written whole or not at all.
        heads: the heads to draw, counted from 0; None for all.
    """
    from matplotlib.figure import Figure

    layers, most = images[0][1], max(maps.weights.shape[2] for maps in images[0][1])
    chosen = list(range(most)) if heads is None else list(heads)
    rows, columns, cell = _grid(len(layers), len(chosen))
    size = (cell * columns + 1.6, len(images) * (cell * 1.04 * rows + 0.5))
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout=close_layout())
    parts = figure.subfigures(len(images), 1, squeeze=False)[:, 0]
    for part, (picture, maps, title) in zip(parts, images, strict=True):
        if title:
            part.suptitle(title, fontsize=10)
        grid = part.subplots(rows, columns, squeeze=False)
        for axis in grid.flat:
            axis.set_axis_off()
        panels = [grid.ravel()] if len(layers) == 1 else grid
        for line, (layer, axes) in enumerate(zip(maps, panels, strict=True)):
            _draw_layer(axes, picture, layer, chosen, line == 0)
        add_scale(part, list(grid.flat), SCALE_LABEL)
    return save(figure, Path(path))


def _grid(layers: int, heads: int) -> tuple[int, int, float]:
    """Choose rows, columns and the size of panels; the heads of a single layer go over several rows."""
    if layers > 1:
        return layers, heads + 1, CELL
    columns = min(heads + 1, 3 if heads in (2, 4, 5) else 4 if heads < 9 else 6)
    return -(-(heads + 1) // columns), columns, LARGE_CELL


def _draw_layer(axes: Any, picture: Picture, layer: PixelMaps, heads: Sequence[int], titled: bool) -> None:
    """Draw the picture with query and window, then the weights of each head."""
    row, column = layer.queries[0].tolist()
    kernel = (layer.weights.shape[-2], layer.weights.shape[-1])
    place = Place.of((row, column), kernel, layer.dilation, layer.stride)
    first = axes[0]
    first.set_axis_on()
    show_picture(first, picture)
    mark(first, place)
    number = f" ({layer.call + 1})" if layer.call > 0 else ""
    first.set_ylabel(f"{_broken(layer.name)}{number}\n{layer.size[0]}x{layer.size[1]}", fontsize=6)
    across, down = place.limits(*picture.shape[:2])
    for head, axis in zip(heads, axes[1:], strict=False):
        if titled:
            axis.set_title(f"head {head + 1}", fontsize=7)
        if head < layer.weights.shape[2]:
            axis.set_axis_on()
            show_weights(axis, picture, layer.on_image(0, 0, head), layer.stride)
            mark(axis, place)
            axis.set(xlim=across, ylim=down)


def _broken(name: str) -> str:
    """Write a long name in two lines."""
    return name if len(name) < 18 else name.replace(".", ".\n", 1) if name.count(".") < 3 else _halves(name)


def _halves(name: str) -> str:
    parts = name.split(".")
    return f"{'.'.join(parts[: len(parts) // 2])}.\n{'.'.join(parts[len(parts) // 2 :])}"


def _check_arguments(images: Tensor, titles: Sequence[str] | None, pixels: Pixels | None) -> None:
    where = "draw_attention_maps"
    if len(images) == 0:
        raise ArgumentError(message(where, "images must be one or more", len(images)))
    for name, given in (("titles", titles), ("pixels", pixels)):
        if given is not None and len(given) != len(images):
            must = f"{name} must be one for each of the {len(images)} images"
            raise ArgumentError(message(where, must, len(given)))
    if pixels is not None:
        check_pixels(where, pixels, images)
