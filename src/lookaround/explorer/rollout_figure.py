"""The picture of an attention rollout."""

from collections.abc import Sequence
from pathlib import Path

from lookaround.explorer.panels import (
    DOTS_PER_INCH,
    Picture,
    Place,
    add_scale,
    close_layout,
    mark,
    save,
    show_picture,
    show_weights,
)
from lookaround.explorer.recording import map_stride
from lookaround.explorer.rollout import Queries, Rollout

CELL = 1.5  # inches a side of a panel
SCALE_LABEL = "share over the largest of the panel,\nwhich is written in its corner"


def draw_rollout(
    picture: Picture,
    rollouts: Sequence[Rollout],
    pixels: Queries,
    path: str | Path,
    *,
    title: str = "",
    image: int = 0,
) -> Path:
    """Draw from where in an image some pixels of some maps take what they hold, and save it as PNG.

    A row is a query, a column is a map. The query is outlined, as large as the map's pixel is on the image.

    Args:
        picture: the image, of 0..1.
        rollouts: what `attention_rollout` returned.
        pixels: the queries that it was given.
        path: where the picture goes; it is written whole or not at all.
        title: what is shown.
        image: which image of the batch the picture is of.
    """
    from matplotlib.figure import Figure

    rows, columns = len(pixels), len(rollouts) + 1
    size = (CELL * columns + 1.4, CELL * 1.12 * rows + (0.55 if title else 0.25))
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout=close_layout())
    if title:
        figure.suptitle(title, fontsize=10)
    grid = figure.subplots(rows, columns, squeeze=False)
    height, width = picture.shape[:2]
    for query, (axes, pixel) in enumerate(zip(grid, pixels, strict=True)):
        show_picture(axes[0], picture)
        words = "the mean of all pixels" if pixel is None else f"column {pixel[1]}, row {pixel[0]}"
        axes[0].set_ylabel(words, fontsize=7)
        if pixel is not None:
            mark(axes[0], Place.of(pixel, (1, 1), (1, 1), (1, 1)))
        for axis, rollout in zip(axes[1:], rollouts, strict=True):
            show_weights(axis, picture, rollout.shares[image, query, :height, :width], (1, 1))
            if query == 0:
                axis.set_title(f"{rollout.layer}, {rollout.size[0]}x{rollout.size[1]}", fontsize=7)
            if pixel is not None:
                stride = map(map_stride, rollout.shares.shape[-2:], rollout.size)
                mark(axis, _place(pixel, *stride))
    add_scale(figure, list(grid.flat), SCALE_LABEL)
    return save(figure, Path(path))


def _place(pixel: tuple[int, int], down: int, across: int) -> Place:
    """Locate the pixel of a map that stands above a pixel of the image."""
    above = (pixel[0] // down, pixel[1] // across)
    return Place.of(above, (1, 1), (1, 1), (down, across))
