"""A picture of a benchmark: bars side by side, or lines over numbers."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lookaround.studies.bench_tables import Panel
from lookaround.training.files import replacing

MOST_LABELS_UPRIGHT = 6


def draw_panels(panels: Sequence[Panel], path: Path, caption: str) -> Path:
    """Draw every panel into one PNG, and return its path.

    Args:
        panels: what to draw, from left to right.
        path: the PNG to write.
        caption: one line on where the figures are from.
    """
    figure = new_figure(len(panels))
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw_lines(axes, panel) if panel.lines else _draw_bars(axes, panel)
        for number, (name, limit) in enumerate(panel.limits.items()):
            axes.axhline(limit, color="black", linestyle=("--", ":")[number % 2], linewidth=1, label=name)
        axes.set(title=panel.title, ylabel=panel.unit)
        axes.grid(alpha=0.3, axis="both" if panel.lines else "y")
        axes.legend(fontsize="small")
    return save_figure(figure, path, caption, len(panels))


def new_figure(columns: int | float, height: float = 4.6) -> Figure:
    """Begin a figure as wide as so many panels; the height is in inches."""
    figure = Figure(figsize=(6.5 * columns, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path, caption: str, columns: int | float) -> Path:
    """Write a figure with one line on where it is from as PNG, and return its path."""
    figure.supxlabel(textwrap.fill(caption, round(90 * columns)), fontsize="x-small", color="dimgray")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
    return path


def _draw_bars(axes: Any, panel: Panel) -> None:
    labels = list(dict.fromkeys(label for values in panel.series.values() for label in values))
    width = 0.8 / max(len(panel.series), 1)
    for number, (name, values) in enumerate(panel.series.items()):
        left = [labels.index(label) + (number + 0.5) * width - 0.4 for label in values]
        axes.bar(left, list(values.values()), width, label=name)
    upright = len(labels) <= MOST_LABELS_UPRIGHT
    axes.set_xticks(
        range(len(labels)), labels, rotation=0 if upright else 30, ha="center" if upright else "right"
    )
    axes.set_axisbelow(True)
    if panel.log:
        axes.set_yscale("log")


def _draw_lines(axes: Any, panel: Panel) -> None:
    for name, values in panel.series.items():
        axes.plot(
            [float(label) for label in values], list(values.values()), label=name, marker="o", markersize=4
        )
    axes.set(xscale="log", yscale="log")
