"""Where a network looks, as plain arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lookaround.errors import ArgumentError, message
from lookaround.explorer.recording import Call, Images, choose_attention, record_calls
from lookaround.explorer.window_weights import bands, window_of, window_weights

Pixels = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class LayerMaps:
    """Where one layer looks.

    Attributes:
        name: the layer's name in the model, as `named_modules` gives it.
        weights: for every image, pixel of the layer's input, head: the weights of its window, float32.
        dilation: distance between neighbours in the window, vertical and horizontal.
        call: how often the layer was called before on these images; the heads of a detector look at one level
            after the other.
        stride: pixels of the image for each pixel of the layer's input, vertical and horizontal.
    """

    name: str
    weights: Float[np.ndarray, "batch height width heads kernel_height kernel_width"]
    dilation: tuple[int, int]
    call: int = 0
    stride: tuple[int, int] = (1, 1)

    def on_image(self, image: int, head: int, row: int, column: int) -> Float[np.ndarray, "height width"]:
        """Lay the window of one query pixel out on the whole map, with 0 outside of it."""
        size = (self.weights.shape[1], self.weights.shape[2])
        return lay_out(self.weights[image, row, column, head], (row, column), size, self.dilation)


@dataclass(frozen=True)
class PixelMaps:
    """Where one layer looks from a few pixels.

    Attributes:
        name: the layer's name in the model, as `named_modules` gives it.
        weights: for every image, query and head: the weights of its window, float32.
        queries: row and column of each query in the layer's input.
        size: height and width of the layer's input.
        dilation: distance between neighbours in the window, vertical and horizontal.
        call: how often the layer was called before on these images.
        stride: pixels of the image for each pixel of the layer's input, vertical and horizontal.
    """

    name: str
    weights: Float[np.ndarray, "batch queries heads kernel_height kernel_width"]
    queries: Int[np.ndarray, "queries 2"]
    size: tuple[int, int]
    dilation: tuple[int, int]
    call: int = 0
    stride: tuple[int, int] = (1, 1)

    def on_image(self, image: int, query: int, head: int) -> Float[np.ndarray, "height width"]:
        """Lay the window of one query out on the whole map, with 0 outside of it."""
        row, column = self.queries[query].tolist()
        return lay_out(self.weights[image, query, head], (row, column), self.size, self.dilation)


def attention_maps(
    model: nn.Module, images: Images, *, layers: Sequence[str] | None = None
) -> list[LayerMaps]:
    """Run a model on images and return where every pixel looks, for each of its attention layers.

    Pixels that are no part of the image, beyond its border or in its padding, have weight 0. (Under border
    "zeros" a layer spends weight on them nevertheless; a window then holds less than 1.) An attention stem is
    shown as a window of twice its block, in which everything outside the query's block has weight 0. Every
    part of the model is left in the mode (training or not) that it was in.

    Args:
        model: any module that holds `LocalAttention2d` or `AttentionStem` layers.
        images: as the model takes them: a batch, or for a detector also a list of images of any sizes.
        layers: names of layers, or patterns as `layer3.*`; None for all.

    Returns:
        The calls of the layers in the order in which the model made them.

    Raises:
        ArgumentError: the model has no attention layer or runs none, or there are no images.
        UnknownNameError: a name or pattern fits no attention layer.

    Cost:
        `heads·k²` floats for each pixel of each layer; `attention_of_pixels` returns those of a few pixels.

    Example:
        >>> from lookaround import LocalAttention2d
        >>> maps = attention_maps(LocalAttention2d(4, 8, 3, num_heads=2), torch.randn(1, 4, 5, 6))
        >>> maps[0].weights.shape
        (1, 5, 6, 2, 3, 3)
    """
    found: list[LayerMaps] = []

    def visit(call: Call) -> None:
        width = call.size[1]
        parts = [window_weights(call, band, (0, width)).float().cpu() for band in bands(call)]
        weights = torch.cat(parts, 1).numpy()
        found.append(LayerMaps(call.name, weights, window_of(call)[1], call.number, call.stride))

    where = "attention_maps"
    record_calls(where, model, images, choose_attention(where, model, layers), visit)
    return found


def attention_of_pixels(
    model: nn.Module, images: Images, pixels: Pixels, *, layers: Sequence[str] | None = None
) -> list[PixelMaps]:
    """Run a model on images and return where a few pixels look, for each of its attention layers.

    The weights are those of `attention_maps` in much less memory.

    Args:
        model: any module that holds `LocalAttention2d` or `AttentionStem` layers.
        images: as the model takes them: a batch, or for a detector also a list of images of any sizes.
        pixels: row and column of each query in the images. In a layer's map it is the pixel that stands
            above it.
        layers: names of layers, or patterns as `layer3.*`; None for all.

    Raises:
        ArgumentError: as `attention_maps`; or a pixel lies outside of the images, or there are none.
        UnknownNameError: a name or pattern fits no attention layer.

    Example:
        >>> from lookaround import LocalAttention2d
        >>> layer = LocalAttention2d(4, 8, 3, num_heads=2)
        >>> maps = attention_of_pixels(layer, torch.randn(1, 4, 5, 6), [(0, 0), (4, 2)])
        >>> maps[0].weights.shape
        (1, 2, 2, 3, 3)
    """
    found: list[PixelMaps] = []

    def visit(call: Call) -> None:
        queries = [above(pixel, call) for pixel in pixels]
        weights = [window_weights(call, (row, row + 1), (column, column + 1)) for row, column in queries]
        windows = torch.stack([each[:, 0, 0] for each in weights], 1).float().cpu().numpy()
        place = np.array(queries, dtype=np.int64)
        dilation = window_of(call)[1]
        found.append(PixelMaps(call.name, windows, place, call.size, dilation, call.number, call.stride))

    where = "attention_of_pixels"
    chosen = choose_attention(where, model, layers)
    check_pixels(where, pixels, images)
    record_calls(where, model, images, chosen, visit)
    return found


def check_pixels(where: str, pixels: Sequence[tuple[int, int] | None], images: Images) -> None:
    """Refuse queries that lie outside of an image; None is none that could.

    Raises:
        ArgumentError: a pixel lies outside, or there are none.
    """
    if len(pixels) == 0:
        raise ArgumentError(message(where, "pixels must be one or more", "none"))
    shapes = [images.shape] if isinstance(images, Tensor) else [image.shape for image in images]
    height, width = (min((shape[axis] for shape in shapes), default=0) for axis in (-2, -1))
    for pixel in pixels:
        if pixel is not None and not (0 <= pixel[0] < height and 0 <= pixel[1] < width):
            must = f"pixels must lie within the images of {height} rows and {width} columns"
            raise ArgumentError(message(where, must, pixel))


def above(pixel: tuple[int, int], call: Call) -> tuple[int, int]:
    """Return the pixel of a layer's map that stands above a pixel of the image."""
    row, column = (
        min(place // step, side - 1) for place, step, side in zip(pixel, call.stride, call.size, strict=True)
    )
    return row, column


def lay_out(
    window: Float[np.ndarray, "kernel_height kernel_width"],
    query: tuple[int, int],
    size: tuple[int, int],
    dilation: tuple[int, int],
) -> Float[np.ndarray, "height width"]:
    """Lay a window out on the whole map, with 0 outside of it."""
    out = np.zeros(size, np.float32)
    for (i, j), weight in np.ndenumerate(window):
        y = query[0] + (i - window.shape[0] // 2) * dilation[0]
        x = query[1] + (j - window.shape[1] // 2) * dilation[1]
        if 0 <= y < size[0] and 0 <= x < size[1]:
            out[y, x] = weight
    return out
