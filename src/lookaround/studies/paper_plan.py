"""What `lookaround paper run` trains: every table of the paper, and what lies beyond it, row by row.

The rows are those of the paper at the paper's scale; `paper_networks` makes them smaller.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lookaround.errors import ArgumentError, UnknownNameError, closest, message
from lookaround.models.paper_detection_rows import PAPER_DETECTION_ROWS, DetectionRow
from lookaround.models.paper_rows import HELD_OUT, PAPER_ROWS, Row
from lookaround.models.variants import CLASSIFICATION, DETECTION

TEST, HELD = "test", "held-out"
ALL = "all"


@dataclass(frozen=True)
class PlanRow:
    """One row of a table.

    Attributes:
        label: what the row is called, in the paper's words where it has some.
        model: the named model, of the paper's size.
        overrides: what differs from it.
        paper_percent: printed accuracy, or mean average precision; None for a row that is not the paper's.
        paper_parameters_millions: printed; None where it is not.
        paper_flops_billions: likewise.
        measured_on: TEST, or HELD: training images that were set aside.
        group: what the row is compared within; rows of one table with the same group make one comparison.
        least_heads: how many heads the attention needs for the row to mean something.
    """

    label: str
    model: str
    overrides: dict[str, Any] = field(default_factory=dict)
    paper_percent: float | None = None
    paper_parameters_millions: float | None = None
    paper_flops_billions: float | None = None
    measured_on: str = TEST
    group: str = ""
    least_heads: int = 1


@dataclass(frozen=True)
class Experiment:
    """One table or figure.

    Attributes:
        name: what the command line calls it.
        title: what it is about.
        rows: its rows, in the paper's order.
        task: CLASSIFICATION or DETECTION.
        reference: which row of a group the others of it are compared with, by its place: the paper's network,
            or what the paper measures its own against.
    """

    name: str
    title: str
    rows: tuple[PlanRow, ...]
    task: str = CLASSIFICATION
    reference: int = 0

    def reference_of(self, row: PlanRow) -> PlanRow:
        """Return the row that a row is compared with; itself if it is the one."""
        return [other for other in self.rows if other.group == row.group][self.reference]


def _of_paper(row: Row) -> PlanRow:
    group = row.label.split()[1] if row.table == "Figure 5" else ""
    group = row.label.split()[0] if row.table == "Table 1" else group
    return PlanRow(
        row.label,
        row.model,
        row.overrides,
        row.top1_percent,
        row.parameters_millions,
        row.flops_billions,
        HELD if row.measured_on == HELD_OUT else TEST,
        group,
    )


def _of_detector(row: DetectionRow) -> PlanRow:
    percent = None if row.map_percent is None else row.map_percent[0]
    return PlanRow(row.label, row.model, row.overrides, percent, row.parameters_millions, row.flops_billions)


_STEM, _FULL = "sasa_resnet50_convstem", "sasa_resnet50"


def _borders() -> tuple[PlanRow, ...]:
    """Both rules at three windows: the wider the window, the more of it lies outside the image."""
    windows = [
        PlanRow(
            f"window {size}, {border}", _STEM, {"kernel_size": size, "border": border}, group=f"window {size}"
        )
        for size in (3, 7, 11)
        for border in ("mask", "zeros")
    ]
    full = [
        PlanRow(f"full attention, {border}", _FULL, {"border": border}, group="full attention")
        for border in ("mask", "zeros")
    ]
    return (*windows, *full)


# group: (label, overrides) of each row
_BEYOND: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "position tables": (
        ("shared by the heads", {"shared_tables": True}),
        ("one for each head", {"shared_tables": False}),
    ),
    "scale": (
        ("in the initialization", {"scale": "initialization"}),
        ("in the equation", {"scale": "equation"}),
    ),
    "projections": (
        ("full", {"projection": "full"}),
        ("grouped", {"projection": "grouped"}),
    ),
    "blocks that attend": (
        ("all", {"attention_blocks": "all"}),
        ("the first of each stage", {"attention_blocks": "first"}),
        ("the last of each stage", {"attention_blocks": "last"}),
        ("every other", {"attention_blocks": "alternate"}),
    ),
}


_OF_HEADS = ("position tables", "projections")  # with one head there would be nothing to compare


def _beyond() -> tuple[PlanRow, ...]:
    return tuple(
        PlanRow(
            f"{group}: {label}", _STEM, overrides, group=group, least_heads=2 if group in _OF_HEADS else 1
        )
        for group, rows in _BEYOND.items()
        for label, overrides in rows
    )


def _table(number: int, title: str, reference: int = 0) -> Experiment:
    rows = tuple(_of_paper(row) for row in PAPER_ROWS if row.table == f"Table {number}")
    return Experiment(f"table{number}", f"Table {number}: {title}", rows, reference=reference)


_FIGURE_5 = tuple(_of_paper(row) for row in PAPER_ROWS if row.table == "Figure 5")
EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        _table(1, "convolution, attention behind a convolutional stem, and full attention"),
        Experiment("figure5", "Figure 5: the three at five widths", _FIGURE_5),
        _table(3, "which stages attend"),
        _table(4, "how wide the window is"),
        _table(5, "what attention knows of positions", reference=-1),
        _table(6, "with and without the content of the keys", reference=-1),
        _table(7, "how the stem attends", reference=-1),
        Experiment("border", "Border: pixels outside the image absent, or zeros", _borders()),
        Experiment("beyond", "Beyond the paper: tables, scale, projections, blocks", _beyond()),
        Experiment(
            "table2",
            "Table 2: attention in a detector's parts",
            tuple(_of_detector(row) for row in PAPER_DETECTION_ROWS),
            DETECTION,
        ),
    )
}


def choose_experiments(names: Sequence[str]) -> tuple[Experiment, ...]:
    """Return the experiments of these names in the order in which they are run; "all" stands for all.

    Raises:
        UnknownNameError: there is no such experiment.
        ArgumentError: none is named.
    """
    known = [*EXPERIMENTS, ALL]
    for name in names:
        if name not in known:
            hint = closest(name, known)
            raise UnknownNameError(message("paper run", "tables must be known", repr(name), hint=hint))
    if not names:
        must = "at least one table must be named"
        raise ArgumentError(message("paper run", must, "none", hint=f"one of {', '.join(known)}."))
    return tuple(e for e in EXPERIMENTS.values() if ALL in names or e.name in names)
