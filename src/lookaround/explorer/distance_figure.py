"""The picture of how far each head looks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lookaround.explorer.distance import LayerDistances
from lookaround.explorer.panels import DOTS_PER_INCH, save

HEADS, POSITION, UNIFORM = "#c1121f", "#1d4ed8", "#6b7280"
SPREAD = 0.5  # of the room of a layer, over which its heads are spread


def draw_distances(
    distances: Sequence[LayerDistances], path: str | Path, *, title: str = "How far each head looks"
) -> Path:
    """Draw the mean distance of each head of each layer, in pixels of its map and of the image; save as PNG.

    Args:
        distances: what `attention_distances` returned.
        path: where the picture goes; it is written whole or not at all.
        title: what was measured.

    Source:
        Dosovitskiy et al. 2021, An Image is Worth 16x16 Words, Figure 7: a dot for each head, over the depth.
    """
    from matplotlib.figure import Figure

    wide = max(4.6, 0.3 * len(distances) + 1.4)
    figure = Figure(figsize=(2 * wide, 4.6), dpi=DOTS_PER_INCH, layout="constrained")
    on_map, on_image = figure.subplots(1, 2)
    for place, layer in enumerate(distances):
        heads = len(layer.on_map)
        across = [place + SPREAD * ((head + 0.5) / heads - 0.5) for head in range(heads)]
        last = place == len(distances) - 1
        flat = {"color": UNIFORM, "linewidth": 1.2, "zorder": 1}
        ends = (place - SPREAD / 2, place + SPREAD / 2)
        on_map.hlines(layer.uniform, *ends, label="equal weights" if last else None, **flat)
        if layer.by_position is not None:
            hollow = {"facecolor": "none", "edgecolor": POSITION, "s": 22, "linewidth": 0.9, "zorder": 2}
            on_map.scatter(across, layer.by_position, **hollow)
        for axis, values in ((on_map, layer.on_map), (on_image, layer.on_image)):
            axis.scatter(across, values, color=HEADS, s=12, zorder=3, label="a head" if last else None)
    if any(layer.by_position is not None for layer in distances):
        on_map.scatter([], [], facecolor="none", edgecolor=POSITION, s=22, label="a head, by position alone")
    on_map.set_ylabel("mean distance (pixels of the layer's map)", fontsize=8)
    on_image.set_ylabel("mean distance (pixels of the image)", fontsize=8)
    on_map.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)
    for axis in (on_map, on_image):
        _label(axis, distances)
    figure.suptitle(title, fontsize=10)
    return save(figure, Path(path))


def _label(axis: Any, distances: Sequence[LayerDistances]) -> None:
    """Name the layers, and begin at 0."""
    repeated = {layer.name for layer in distances if layer.call > 0}
    names = [
        f"{layer.name} ({layer.size[0]}x{layer.size[1]})" if layer.name in repeated else layer.name
        for layer in distances
    ]
    turned = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"}
    axis.set_xticks(range(len(names)), names, fontsize=6, **turned)
    axis.set(ylim=(0, None), xlim=(-0.6, len(names) - 0.4))
    axis.tick_params(axis="y", labelsize=7)
    axis.grid(axis="y", color="#e5e7eb", linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
