"""Whether differences between rows are there for every seed, and point where the paper's do.

A difference is taken for each seed by itself, between runs of that seed; a two-sided t-test over the seeds
asks whether their mean is zero (a paired t-test). Nothing is assumed of seeds but that they are drawn alike.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lookaround.studies.paper_claims import CLAIMS, Claim, Place

LEVEL = 0.05  # below this p a difference is called sure
CONFIDENCE = 0.95
ROUNDING = 1e-6  # percentage points
HOLDS, REVERSED, DIFFERS, NOT_SURE = "holds", "reversed", "differs", ", not sure"
UNDECIDED, TIE, SAME, WAITING = "undecided", "no order in the paper", "the same network", "not measured yet"
Experiments = Mapping[str, Mapping[str, Any]]  # of results.json


@dataclass(frozen=True)
class Comparison:
    """A difference in accuracy.

    Attributes:
        text: what is compared.
        printed_points: the paper's, in percentage points; None where it prints none.
        points: ours by seed, in percentage points.
        mean: of these; None if there are none.
        low: lower end of its confidence interval; None for fewer than two seeds.
        high: its upper end.
        p: of the hypothesis that there is no difference; None where it cannot be told.
        verdict: see `judge`.
    """

    text: str
    printed_points: float | None
    points: tuple[float, ...]
    mean: float | None
    low: float | None
    high: float | None
    p: float | None
    verdict: str


@dataclass(frozen=True)
class Ranking:
    """How alike the paper and we order the rows of a table.

    Attributes:
        rows: how many both have figures of.
        tau: Kendall's tau-b between the printed figures and our means: 1 the same order, -1 the opposite.
        p: of the hypothesis that the two orders have nothing to do with each other.
        by_seed: tau of each seed by itself.
    """

    rows: int
    tau: float
    p: float
    by_seed: tuple[float, ...]


def judge(printed: float | None, points: Sequence[float], p: float | None) -> str:
    """Say in a word what came of a difference.

    Args:
        printed: the paper's; None where it prints none.
        points: ours, by seed.
        p: of the test.

    Example:
        >>> judge(0.9, [1.1, 1.2, 1.0], 0.003), judge(0.9, [-1.0, 0.1, -2.0], 0.25)
        ('holds', 'reversed, not sure')
        >>> judge(0.9, [-1.0, 1.1, 0.3], 0.85), judge(None, [1.1, 1.2, 1.0], 0.003)
        ('undecided', 'differs')
    """
    if len(points) < 2:
        return WAITING
    if printed == 0:
        return TIE
    mean, error = statistics.fmean(points), statistics.stdev(points) / math.sqrt(len(points))
    sure = p is not None and p < LEVEL
    if not sure and abs(mean) <= error:
        return UNDECIDED
    word = DIFFERS if printed is None else HOLDS if mean * printed > 0 else REVERSED
    return word if sure else f"{word}{NOT_SURE}"


def compare(text: str, weights: Mapping[Place, float], experiments: Experiments) -> Comparison:
    """Add up accuracies of rows, each times its weight, seed by seed, and test whether they come to zero."""
    rows = {(name, row["label"]): row for name, one in experiments.items() for row in one["rows"]}
    chosen = [(rows[place], weight) for place, weight in weights.items()]
    printed = _printed(chosen)
    networks = [tuple(run["run"] for run in row["runs"]) for row, _ in chosen]
    if len(networks) == 2 and networks[0] == networks[1]:
        return Comparison(text, printed, (), None, None, None, None, SAME)
    points = _points(chosen)
    low, high, p = _test(points)
    mean = statistics.fmean(points) if points else None
    return Comparison(text, printed, points, mean, low, high, p, judge(printed, points, p))


def _printed(chosen: Sequence[tuple[Mapping[str, Any], float]]) -> float | None:
    figures = [row["paper"]["percent"] for row, _ in chosen]
    if None in figures:
        return None
    total: float = sum(figure * weight for figure, (_, weight) in zip(figures, chosen, strict=True))
    return round(total, 6)  # printed figures have one digit: what is left beyond these is rounding


def _points(chosen: Sequence[tuple[Mapping[str, Any], float]]) -> tuple[float, ...]:
    by_seed: dict[int, list[float]] = {}
    for row, weight in chosen:
        for run in row["runs"]:
            if run["figure"] is not None:
                by_seed.setdefault(run["seed"], []).append(100 * run["figure"] * weight)
    return tuple(sum(parts) for _, parts in sorted(by_seed.items()) if len(parts) == len(chosen))


def _test(points: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """Return ends of the confidence interval and p; none where seeds differ in nothing but rounding."""
    from scipy import stats  # type: ignore[import-untyped]

    if len(points) < 2 or statistics.stdev(points) < ROUNDING:
        return None, None, None
    result = stats.ttest_1samp(points, 0.0)
    interval = result.confidence_interval(CONFIDENCE)
    return float(interval.low), float(interval.high), float(result.pvalue)


def compare_rows(name: str, experiments: Experiments) -> list[Comparison]:
    """Compare every row of an experiment with the one that it is to be compared with."""
    return [
        compare(
            f"{row['label']} against {row['reference']}",
            {(name, row["label"]): 1.0, (name, row["reference"]): -1.0},
            experiments,
        )
        for row in experiments[name]["rows"]
        if row["label"] != row["reference"]
    ]


def compare_claims(experiments: Experiments, claims: Sequence[Claim] = CLAIMS) -> list[Comparison]:
    """Test the claims whose rows are all among the experiments."""
    known = [claim for claim in claims if set(claim.experiments) <= set(experiments)]
    return [compare(claim.text, claim.weights, experiments) for claim in known]


def rank(rows: Sequence[Mapping[str, Any]]) -> Ranking | None:
    """Compare the order of the rows with the paper's; None for fewer than three, or if all are equal."""
    from scipy import stats

    known = [row for row in rows if row["paper"]["percent"] is not None and row["mean"] is not None]
    printed = [row["paper"]["percent"] for row in known]
    if len(known) < 3 or len(set(printed)) < 2 or len({row["mean"] for row in known}) < 2:
        return None
    result = stats.kendalltau(printed, [row["mean"] for row in known])
    by_seed = []
    for seed in range(len(known[0]["runs"])):
        figures = [row["runs"][seed]["figure"] for row in known]
        if None not in figures:
            tau = float(stats.kendalltau(printed, figures).statistic)
            by_seed += [] if math.isnan(tau) else [tau]
    return Ranking(len(known), float(result.statistic), float(result.pvalue), tuple(by_seed))
