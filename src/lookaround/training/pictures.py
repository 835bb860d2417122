"""Pictures of a run: learning curves and confusion matrix, drawn without a display."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lookaround.training.files import replacing

DOTS_PER_INCH = 120
MOST_NUMBERED_CLASSES = 20
MOST_NAMED_CLASSES = 50
Rows = Sequence[Mapping[str, float]]


def draw_learning_curves(rows: Rows, path: Path, title: str) -> None:
    """Draw loss, accuracy and learning rate against the epoch.

    Args:
        rows: one mapping per epoch, as in `metrics.csv`.
        path: the PNG to write.
        title: what was trained.
    """
    figure = Figure(figsize=(12, 3.8), dpi=DOTS_PER_INCH, layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    draw_curve(loss, rows, "train_loss", "training")
    draw_curve(loss, rows, "val_loss", "validation")
    loss.set(title="Loss", ylabel="cross entropy (nats)")
    draw_curve(accuracy, rows, "train_accuracy", "training")
    draw_curve(accuracy, rows, "val_accuracy", "validation")
    accuracy.set(title="Accuracy", ylabel="correct images")
    accuracy.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    draw_curve(rate, rows, "learning_rate", "end of epoch")
    rate.set(title="Learning rate", ylabel="learning rate")
    finish_curves((loss, accuracy, rate))
    figure.suptitle(title)
    save_figure(figure, path)


def draw_confusion_matrix(counts: np.ndarray, class_names: Sequence[str], path: Path, title: str) -> None:
    """Draw which class was taken for which.

    Args:
        counts: images per true class (row) and predicted class (column).
        class_names: name of every class.
        path: the PNG to write.
        title: what was measured, on which images.
    """
    classes = len(counts)
    side = min(14.0, 3.5 + 0.45 * classes)
    figure = Figure(figsize=(side + 0.8, side), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(title=title, xlabel="predicted class", ylabel="true class")
    if classes <= MOST_NAMED_CLASSES:
        slanted: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(range(classes), class_names, **(slanted if max(map(len, class_names)) > 3 else {}))
        axes.set_yticks(range(classes), class_names)
    if classes <= MOST_NUMBERED_CLASSES:
        _write_counts(axes, counts, shares)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, format=PercentFormatter(xmax=1))
    bar.set_label("share of the true class")
    save_figure(figure, path)


def draw_curve(axes: Any, rows: Rows, key: str, label: str, **style: str) -> None:
    """Draw one column of metrics.csv against the epoch, if there is such a column."""
    points = [(row["epoch"], row[key]) for row in rows if key in row]
    if points:
        epochs, values = zip(*points, strict=True)
        marker = "o" if len(points) < 30 else None
        axes.plot(epochs, values, label=label, marker=marker, markersize=3, **style)


def finish_curves(panels: Sequence[Any]) -> None:
    """Give panels over the epoch their axis, grid and legend."""
    for axes in panels:
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="small")


def _write_counts(axes: Any, counts: np.ndarray, shares: np.ndarray) -> None:
    for (true, predicted), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[true, predicted] > 0.5 else "black"
            axes.text(predicted, true, str(count), ha="center", va="center", color=colour, fontsize=8)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all.

    Names of classes and runs are written as they are: a dollar sign begins no formula.
    """
    FigureCanvasAgg(figure)
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
