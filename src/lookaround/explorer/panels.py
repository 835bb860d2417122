"""The parts of the explorer's figures: a picture with weights over it, the query and its window marked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from lookaround.training.files import replacing

DOTS_PER_INCH = 120
QUERY_COLOUR, WINDOW_COLOUR = "#00e5ff", "#ffffff"
COLOURS = "inferno"
OPACITY, DARKEST = 0.7, 0.2  # of weights over a picture in grey, and of that picture
ZOOM_BELOW = 0.5  # a window that takes less than this of the picture's sides is shown larger
MARGIN = 0.25  # of the window, shown around it
EDGE = 0.01
Span = tuple[float, float]
Picture = Float[np.ndarray, "height width"] | Float[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class Place:
    """Where a query and its window are, in pixels of the picture.

    Attributes:
        query: left, top, width and height of the pixel that asks.
        window: the same of what it can see.
    """

    query: tuple[int, int, int, int]
    window: tuple[int, int, int, int]

    @classmethod
    def of(
        cls,
        query: tuple[int, int],
        kernel: tuple[int, int],
        dilation: tuple[int, int],
        stride: tuple[int, int],
    ) -> "Place":
        """Locate a pixel of a map and its window.

        Args:
            query: row and column in the map.
            kernel: height and width of the window, in taps.
            dilation: distance between the taps.
            stride: pixels of the picture for each pixel of the map.
        """
        tops = [place * step for place, step in zip(query, stride, strict=True)]
        reach = [size // 2 * apart * step for size, apart, step in zip(kernel, dilation, stride, strict=True)]
        return cls(
            (tops[1], tops[0], stride[1], stride[0]),
            (tops[1] - reach[1], tops[0] - reach[0], stride[1] + 2 * reach[1], stride[0] + 2 * reach[0]),
        )

    def limits(self, height: int, width: int) -> tuple[Span, Span]:
        """Choose the columns and rows of a picture to show, from the bottom; all if the window is large."""
        left, top, across, down = self.window
        if across >= ZOOM_BELOW * width or down >= ZOOM_BELOW * height:
            return whole(height, width)
        around = (MARGIN * across, MARGIN * down)
        return (
            (max(0.0, left - around[0]), min(float(width), left + across + around[0])),
            (min(float(height), top + down + around[1]), max(0.0, top - around[1])),
        )


def whole(height: int, width: int) -> tuple[Span, Span]:
    """Show the whole picture, with a little room for outlines at its border."""
    return (-EDGE * width, (1 + EDGE) * width), ((1 + EDGE) * height, -EDGE * height)


def as_picture(image: Tensor) -> Picture:
    """Stretch a normalised image to 0..1: height width, or height width 3."""
    array = image.detach().float().cpu().numpy()
    low, high = array.min(), array.max()
    array = (array - low) / max(high - low, 1e-12)
    picture: np.ndarray = array.transpose(1, 2, 0) if array.shape[0] == 3 else array.mean(0)
    return picture


def most_salient(picture: Picture) -> tuple[int, int]:
    """Return the pixel farthest from the mean colour."""
    grey = picture if picture.ndim == 2 else picture.mean(-1)
    row, column = np.unravel_index(np.abs(grey - grey.mean()).argmax(), grey.shape)
    return int(row), int(column)


def show_picture(axis: Any, picture: Picture) -> None:
    """Draw a picture."""
    height, width = picture.shape[:2]
    axis.imshow(picture, extent=(0, width, height, 0), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    across, down = whole(height, width)
    axis.set(xticks=[], yticks=[], xlim=across, ylim=down)


def show_weights(
    axis: Any, picture: Picture, weights: Float[np.ndarray, "rows columns"], stride: tuple[int, int]
) -> None:
    """Draw weights over a picture in grey, the largest one brightest, and write how large it is.

    Args:
        axis: where.
        picture: what the weights are of.
        weights: of each pixel of a map whose first pixel is that of the picture.
        stride: pixels of the picture for each pixel of the map.
    """
    grey = picture if picture.ndim == 2 else picture.mean(-1)
    grey = (grey - grey.min()) / max(float(grey.max() - grey.min()), 1e-12)
    show_picture(axis, DARKEST + (1 - DARKEST) * grey)
    largest = float(weights.max())
    extent = (0, weights.shape[1] * stride[1], weights.shape[0] * stride[0], 0)
    strength = weights / max(largest, 1e-12)
    axis.imshow(strength, extent=extent, cmap=COLOURS, vmin=0, vmax=1, alpha=OPACITY, interpolation="nearest")
    across, down = whole(*grey.shape)
    axis.set(xlim=across, ylim=down)
    box = {"facecolor": "black", "alpha": 0.6, "pad": 0.8, "edgecolor": "none"}
    axis.text(
        0.03,
        0.03,
        f"max {_short(largest)}",
        transform=axis.transAxes,
        fontsize=6,
        color="white",
        va="bottom",
        bbox=box,
    )


def mark(axis: Any, place: Place) -> None:
    """Outline a query and, dashed, its window."""
    from matplotlib.patches import Rectangle

    for box, colour, style in (
        (place.window, WINDOW_COLOUR, (0, (3, 2))),
        (place.query, QUERY_COLOUR, "solid"),
    ):
        outline = Rectangle(box[:2], box[2], box[3], fill=False, edgecolor=colour, linestyle=style)
        outline.set_linewidth(1.2 if colour == QUERY_COLOUR else 0.8)
        axis.add_patch(outline)


def add_scale(figure: Any, axes: Any, label: str) -> None:
    """Put the colours' scale beside some axes."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    colours = ScalarMappable(Normalize(0, 1), COLOURS)
    bar = figure.colorbar(
        colours, ax=axes, alpha=OPACITY, fraction=0.03, pad=0.01, aspect=40, ticks=[0, 0.25, 0.5, 0.75, 1]
    )
    bar.ax.tick_params(labelsize=6)
    bar.set_label(label, fontsize=7)


def close_layout() -> Any:
    """Lay panels out close to each other."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return ConstrainedLayoutEngine(w_pad=0.05, h_pad=0.02, wspace=0.02, hspace=0.02)


def save(figure: Any, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    from lookaround.explorer.boxes import round_colours

    canvas: Any = FigureCanvasAgg(figure)  # without types
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    with replacing(path) as temporary:
        round_colours(drawn).save(temporary, format="PNG", optimize=True)
    return path


def _short(value: float) -> str:
    return f"{value:.2f}" if value >= 0.005 or value == 0 else f"{value:.0e}"
