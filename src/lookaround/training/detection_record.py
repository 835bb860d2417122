"""What a run leaves of its detections: figures, a table of classes, curves and the boxes themselves."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lookaround.tasks.coco_metrics import OVERLAPS, RECALLS, CocoScores
from lookaround.training.files import write_json, write_rows
from lookaround.training.pictures import DOTS_PER_INCH, Rows, draw_curve, finish_curves, save_figure

MOST_CURVES, COLOURS = 20, 10
FILES = ("precision_recall.png", "classes.csv", "detections.json")


def draw_detection_curves(rows: Rows, path: Path, title: str) -> None:
    """Draw losses, mean average precision and learning rate against the epoch.

    Args:
        rows: one mapping per epoch, as in `metrics.csv`.
        path: the PNG to write.
        title: what was trained.
    """
    figure = Figure(figsize=(12, 3.8), dpi=DOTS_PER_INCH, layout="constrained")
    loss, precision, rate = figure.subplots(1, 3)
    for part, style in (("loss", "-"), ("class_loss", "--"), ("box_loss", ":")):
        name = {"loss": "both losses", "class_loss": "classes", "box_loss": "boxes"}[part]
        draw_curve(loss, rows, f"train_{part}", f"training, {name}", color="C0", linestyle=style)
        draw_curve(loss, rows, f"val_{part}", f"validation, {name}", color="C1", linestyle=style)
    loss.set(title="Loss", ylabel="focal + weighted Huber loss")
    draw_curve(precision, rows, "val_map", "overlap 0.5 to 0.95")
    draw_curve(precision, rows, "val_map50", "overlap 0.5")
    precision.set(title="Mean average precision, validation", ylabel="mAP", ylim=(0, 1))
    draw_curve(rate, rows, "learning_rate", "end of epoch")
    rate.set(title="Learning rate", ylabel="learning rate")
    finish_curves((loss, precision, rate))
    figure.suptitle(title)
    save_figure(figure, path)


def draw_precision_recall(scores: CocoScores, path: Path, title: str) -> None:
    """Draw precision against recall: mean of the classes at several overlaps, and each class at 0.5.

    Args:
        scores: what COCO says.
        path: the PNG to write.
        title: what was measured, on which images.
    """
    figure = Figure(figsize=(11, 4.6), dpi=DOTS_PER_INCH, layout="constrained")
    overlaps, classes = figure.subplots(1, 2)
    recall = np.linspace(0, 1, RECALLS)
    known = [index for index, entry in enumerate(scores.classes) if entry.objects > 0]
    for overlap in (0.5, 0.6, 0.7, 0.75, 0.8, 0.9):
        if known:
            mean = scores.precision[OVERLAPS.index(overlap)][:, known].mean(axis=1)
            overlaps.plot(recall, mean, label=f"{overlap:g}: {mean.mean():.3f}")
    overlaps.set(title="Mean of the classes, by overlap")
    shown = known[:MOST_CURVES]
    for number, index in enumerate(shown):
        entry = scores.classes[index]
        # A legend leaves out what begins with an underscore; colours come again after ten.
        label = f"{' ' * entry.name.startswith('_')}{entry.name}: {entry.ap50:.3f}"
        style = "-" if number < COLOURS else "--"
        classes.plot(recall, scores.precision[0][:, index], style, label=label, lw=1)
    some = f", the first {len(shown)} of {len(known)}" if len(shown) < len(known) else ""
    classes.set(title=f"Each class at an overlap of 0.5{some}")
    for axes in (overlaps, classes):
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=7, title="average precision", ncols=2 if axes is classes else 1)
    figure.suptitle(title)
    save_figure(figure, path)


def write_scores(task: Any, data: Any, folder: Path, beginning: str, title: str) -> None:
    """Write what a detection's last validation or test showed, if there was one.

    The files are `precision_recall.png`, `classes.csv` (average precision of each class) and
    `detections.json` (every box, in COCO's result format, in pixels of the files).
    """
    scores: CocoScores | None = task.scores
    if scores is None:
        return
    said = f"{scores.images:,} images, mAP {scores.figures['map']:.3f}, AP50 {scores.figures['map50']:.3f}"
    draw_precision_recall(scores, folder / f"{beginning}precision_recall.png", f"{title}: {said}")
    rows = [{key: _cell(value) for key, value in asdict(entry).items()} for entry in scores.classes]
    write_rows(folder / f"{beginning}classes.csv", rows)
    write_json(folder / f"{beginning}detections.json", list(scores.detections))


def _cell(value: object) -> object:
    return "" if isinstance(value, float) and math.isnan(value) else value
