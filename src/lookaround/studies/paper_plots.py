"""Pictures of the paper's tables, the paper's figures beside ours."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.patches import Patch

from lookaround.models.variants import CLASSIFICATION, DETECTION
from lookaround.studies.charts import new_figure, save_figure
from lookaround.studies.paper_comparisons import SAME
from lookaround.studies.paper_page import describe_data

Point = tuple[str, int | float | None, float | None, float | None]  # label, x, y, spread of y
PAPER = {CLASSIFICATION: "the paper: ImageNet", DETECTION: "the paper: COCO"}
# Each curve, and where the names of its points stand, in points of the page.
SERIES = {"baseline": (9, -10), "conv stem + attention": (-9, 6), "full attention": (9, -10)}
THEIRS, OURS = "lightgray", "tab:blue"
BAR_COLUMNS, BAR_INCHES = 1.4, 0.5  # width in panels, height of a bar


def draw_experiment(name: str, document: dict[str, Any], folder: Path) -> Path | None:
    """Draw an experiment into `<name>.png` of a folder; None, and no file, while there is nothing to see.

    Args:
        name: of the experiment.
        document: results, as `paper_report.complete` gives them.
        folder: where the picture goes.
    """
    experiment = document["experiments"][name]
    path = folder / f"{name}.png"
    curves = name in _CURVES
    measured = any(row["mean"] is not None for row in experiment["rows"])
    if not (measured if curves else any(one["points"] for one in experiment["comparisons"])):
        path.unlink(missing_ok=True)
        return None
    here = f"here: {describe_data(document, experiment['task'])}"
    figure = (_CURVES[name] if curves else _bars)(experiment, here)
    return save_figure(figure, path, _caption(document, experiment, curves), 2 if curves else BAR_COLUMNS)


def _caption(document: dict[str, Any], experiment: Mapping[str, Any], curves: bool) -> str:
    bars = "Lines of error: standard deviation over the seeds" + ("" if curves else "; dots: each seed")
    seeds = document["request"]["seeds"]
    runs = {run["run"]: run for row in experiment["rows"] for run in row["runs"]}
    done = sum(run["train_seconds"] is not None for run in runs.values())
    state = "" if done == len(runs) else f" {done} of {len(runs)} trainings are done."
    paper = " The paper: Ramachandran et al. 2019." if _is_printed(experiment) else ""
    return f"{bars}. {seeds} seed{'s' if seeds > 1 else ''}.{state}{paper}"


def _is_printed(experiment: Mapping[str, Any]) -> bool:
    return all(row["paper"]["percent"] is not None for row in experiment["rows"])


def _costs(experiment: Mapping[str, Any], here: str) -> Any:
    """Accuracy against FLOPs and parameters: the paper's above, ours below."""
    figure = new_figure(2, 8.4)
    axes = figure.subplots(2, 2)
    rows = experiment["rows"]
    theirs = {"GFLOPs": "flops_billions", "million parameters": "parameters_millions"}
    for place, (unit, key) in zip(axes[0], theirs.items(), strict=True):
        _curves(place, [(row["label"], row["paper"][key], row["paper"]["percent"], None) for row in rows])
        _finish(place, unit, PAPER[CLASSIFICATION])
    ours = {"MFLOPs, as the paper counts": ("paper_flops", 1e6), "thousand parameters": ("parameters", 1e3)}
    for place, (unit, (key, size)) in zip(axes[1], ours.items(), strict=True):
        _curves(place, [(row["label"], _over(row[key], size), *_measured(row)) for row in rows])
        _finish(place, unit, here)
    figure.suptitle(experiment["title"])
    return figure


def _over(number: int | None, size: float) -> float | None:
    return None if number is None else number / size


def _measured(row: Mapping[str, Any]) -> tuple[float | None, float | None]:
    mean, deviation = row["mean"], row["standard_deviation"]
    return None if mean is None else 100 * mean, None if deviation is None else 100 * deviation


def _curves(axes: Any, points: Sequence[Point]) -> None:
    for number, (series, where) in enumerate(SERIES.items()):
        known = [one for one in points if one[0].endswith(f" {series}") and None not in one[1:3]]
        if not known:
            continue
        color = f"C{number}"
        _line(axes, known, color, "osD"[number], series)
        for label, x, y, _ in known:
            name = label.removesuffix(f" {series}").removeprefix("ResNet-").removeprefix("width ")
            style: dict[str, Any] = {
                "textcoords": "offset points",
                "fontsize": 7,
                "color": color,
                "ha": "center",
            }
            axes.annotate(name, (x, y), where, **style)


def _line(axes: Any, points: Sequence[Point], color: str, marker: str, label: str | None = None) -> None:
    _, xs, ys, spreads = zip(*points, strict=True)
    axes.plot(xs, ys, label=label, color=color, marker=marker, markersize=4)
    with_spread = [point for point in points if point[3] is not None]
    if with_spread:
        _, xs, ys, spreads = zip(*with_spread, strict=True)
        axes.errorbar(xs, ys, spreads, color=color, linestyle="none", capsize=3)


def _windows(experiment: Mapping[str, Any], here: str) -> Any:
    """Accuracy against the window."""
    figure = new_figure(2)
    rows = [(int(row["label"].removeprefix("window ")), row) for row in experiment["rows"]]
    theirs: list[Point] = [("", size, row["paper"]["percent"], None) for size, row in rows]
    ours: list[Point] = [("", size, *_measured(row)) for size, row in rows if row["mean"] is not None]
    for axes, points, where in zip(
        figure.subplots(1, 2), (theirs, ours), (PAPER[CLASSIFICATION], here), strict=True
    ):
        _line(axes, points, "C1", "s")
        axes.set_xticks([size for size, _ in rows])
        _finish(axes, "window (pixels a side)", where)
    figure.suptitle(experiment["title"])
    return figure


def _finish(axes: Any, unit: str, title: str) -> None:
    axes.set(xlabel=unit, ylabel="accuracy, %", title=title)
    axes.grid(alpha=0.3)
    axes.margins(0.08)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")


def _bars(experiment: Mapping[str, Any], here: str) -> Any:
    """Differences from the row that others are compared with, the paper's above ours."""
    pairs = _shown(experiment)
    references = list(dict.fromkeys(row["reference"] for row, _ in pairs))
    figure = new_figure(BAR_COLUMNS, 1.9 + BAR_INCHES * len(pairs))
    axes = figure.subplots()
    printed = _is_printed(experiment)
    for line, (_, one) in enumerate(pairs):
        if printed:
            axes.barh(line - 0.18, one["printed_points"], 0.32, color=THEIRS, edgecolor="gray")
        _our_bar(axes, line + 0.18 if printed else line, one)
    axes.axvline(0, color="black", linewidth=1)
    names = [_name(row, one, len(references) == 1) for row, one in pairs]
    axes.set_yticks(range(len(pairs)), names, fontsize="small")
    against = f" against {references[0]}" if len(references) == 1 else ""
    figures = "mAP" if experiment["task"] == DETECTION else "accuracy"
    axes.set(xlabel=f"{figures}{against}, percentage points", ylim=(len(pairs) - 0.5, -0.5))
    axes.use_sticky_edges = False
    axes.margins(x=0.08)
    axes.grid(alpha=0.3, axis="x")
    axes.set_axisbelow(True)
    kinds = ({PAPER[experiment["task"]]: THEIRS} if printed else {}) | {here: OURS}
    patches = [Patch(facecolor=color, label=name) for name, color in kinds.items()]
    axes.set_title(experiment["title"], pad=24)  # above the legend
    above: dict[str, Any] = {
        "loc": "lower center",
        "bbox_to_anchor": (0.5, 1.0),
        "ncols": 2,
        "frameon": False,
    }
    axes.legend(handles=patches, fontsize="small", **above)
    return figure


def _shown(experiment: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Each row that is compared with another, and the comparison."""
    others = [row for row in experiment["rows"] if row["label"] != row["reference"]]
    pairs = zip(others, experiment["comparisons"], strict=True)
    return [(row, one) for row, one in pairs if one["points"] or one["verdict"] == SAME]


def _name(row: Mapping[str, Any], one: Mapping[str, Any], plain: bool) -> str:
    lines = [row["label"]]
    lines += [] if plain else [f"against {row['reference']}"]
    lines += ["(the same network)"] if one["verdict"] == SAME else []
    return "\n".join(lines)


def _our_bar(axes: Any, line: int | float, one: Mapping[str, Any]) -> None:
    """A difference, its standard deviation and the seeds."""
    points = one["points"]
    if not points:
        return
    spread = statistics.stdev(points) if len(points) > 1 else None
    axes.barh(line, one["mean"], 0.32, xerr=spread, color=OURS, capsize=3)
    axes.plot(points, [line] * len(points), "o", color="white", markeredgecolor="black", markersize=4)


_CURVES: dict[str, Callable[[Mapping[str, Any], str], Any]] = {
    "table1": _costs,
    "figure5": _costs,
    "table4": _windows,
}
