"""Suite `scaling`: what the operator costs as the image, the window and the batch grow."""

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from lookaround.studies.bench_context import Bench, Race
from lookaround.studies.bench_shapes import Problem, Shape, make_problem
from lookaround.studies.bench_tables import Panel, Row, Table, verdict

CHANNELS = 64
KINDS = ("forward", "training")
# Linear is a slope of 1 in logarithms; a tenth more lets caches, which small images fit into, show.
MOST_SLOPE = 1.1


@dataclass(frozen=True)
class Sweep:
    """One size that grows while the others stay.

    Attributes:
        name: what grows.
        sizes: its values.
        work: what the cost should be proportional to at most, for each value.
        problem: makes the inputs for a value.
    """

    name: str
    sizes: tuple[int, ...]
    work: Callable[[int], float]
    problem: Callable[[int], Problem]


def run(bench: Bench) -> tuple[list[Table], list[Panel]]:
    """Measure; returns the tables and what to draw."""
    summary_columns = {
        "what grows": "",
        "pass": "",
        "from": "",
        "to": "",
        "work": ".1f",
        "cost": ".1f",
        "cost / work": ".2f",
        "slope": ".2f",
        "target": "",
        "met": "",
    }
    summary = Table(
        "Growth of the operator's cost",
        summary_columns,
        remark="Work: growth of pixels, of the window's pixels, or of images. Cost: growth of the time. "
        "Slope: of the logarithm of the time against that of the work, by least squares; 1 is linear.",
    )
    tables, panels = [summary], []
    for sweep in sweeps(bench):
        race = _race(bench, sweep)
        tables.append(_points(sweep, race))
        summary.rows.extend(_summary_row(bench, sweep, race, kind) for kind in KINDS)
        panels.append(_panel(sweep, race))
    return tables, panels


def sweeps(bench: Bench) -> list[Sweep]:
    """Image size, window and batch."""
    quick = bench.settings.quick
    base = Shape(16, 8, 3) if quick else Shape(CHANNELS, 56)
    images = 1 if quick else bench.batch_size(1)
    few = 1 if quick else bench.batch_size(8)
    return [
        Sweep(
            f"image size, {base.kernel_size}x{base.kernel_size} window, batch {images}",
            (4, 8) if quick else (56, 112, 224, 448),
            lambda size: float(size**2),
            lambda size: make_problem(bench, replace(base, size=size), images),
        ),
        Sweep(
            f"window, {base.size}x{base.size} pixels, batch {few}",
            (3, 5) if quick else (3, 5, 7, 9, 11, 13, 15),
            lambda size: float(size**2),
            lambda size: make_problem(bench, replace(base, kernel_size=size), few),
        ),
        Sweep(
            f"batch, {base.size}x{base.size} pixels, {base.kernel_size}x{base.kernel_size} window",
            (1, 2) if quick else (1, 2, 4, 8, 16, 32),
            float,
            lambda size: make_problem(bench, base, size),
        ),
    ]


def slope(points: Mapping[float, float]) -> float:
    """Slope of log(value) against log(key), by least squares.

    Example:
        >>> round(slope({1.0: 3.0, 2.0: 6.0, 4.0: 12.0}), 6)
        1.0
    """
    keys = [math.log(key) for key in points]
    return statistics.linear_regression(keys, [math.log(value) for value in points.values()]).slope


def _race(bench: Bench, sweep: Sweep) -> Race:
    work: dict[str, Callable[[], object]] = {}
    for size in sweep.sizes:
        problem = sweep.problem(size)
        call = partial(problem.run, "auto")
        work[f"{size} forward"] = problem.forward_work(call)
        work[f"{size} training"] = problem.training_work(call)
    return bench.measure(sweep.name, work)


def _points(sweep: Sweep, race: Race) -> Table:
    name = sweep.name.partition(",")[0]
    columns = {name: "", "work": ".1f"}
    columns |= {f"{kind} cost": ".1f" for kind in KINDS} | {f"{kind} cost / work": ".2f" for kind in KINDS}
    columns |= {f"{kind} ms": ".3f" for kind in KINDS}
    table = Table(f"Growing {sweep.name}", columns, remark="Work and cost against the first row.")
    first = sweep.sizes[0]
    for size in sweep.sizes:
        grown = sweep.work(size) / sweep.work(first)
        row: Row = {name: size, "work": grown}
        for kind in KINDS:
            cost = race.ratio(f"{size} {kind}", f"{first} {kind}")
            row |= {f"{kind} cost": cost, f"{kind} cost / work": cost / grown}
            row[f"{kind} ms"] = race.seconds(f"{size} {kind}") * 1e3
        table.rows.append(row)
    return table


def _summary_row(bench: Bench, sweep: Sweep, race: Race, kind: str) -> Row:
    first, last = sweep.sizes[0], sweep.sizes[-1]
    work = sweep.work(last) / sweep.work(first)
    cost = race.ratio(f"{last} {kind}", f"{first} {kind}")
    found = slope({sweep.work(size): race.seconds(f"{size} {kind}") for size in sweep.sizes})
    return {
        "what grows": sweep.name,
        "pass": kind,
        "from": first,
        "to": last,
        "work": work,
        "cost": cost,
        "cost / work": cost / work,
        "slope": found,
        **verdict(found, at_most=MOST_SLOPE if bench.promised else None),
    }


def _panel(sweep: Sweep, race: Race) -> Panel:
    first = sweep.sizes[0]
    series = {
        kind: {str(size): race.ratio(f"{size} {kind}", f"{first} {kind}") for size in sweep.sizes}
        for kind in KINDS
    }
    series["proportional"] = {str(size): sweep.work(size) / sweep.work(first) for size in sweep.sizes}
    return Panel(sweep.name, f"time / time at {first}", series, lines=True)
