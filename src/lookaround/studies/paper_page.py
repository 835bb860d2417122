"""The results of the paper's tables as a Markdown page."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from lookaround.models.variants import CLASSIFICATION, DETECTION
from lookaround.studies.markdown import markdown_table, words_first
from lookaround.studies.paper_comparisons import LEVEL, SAME, TIE, WAITING, Comparison, Ranking
from lookaround.studies.paper_savings import Saving
from lookaround.studies.run_tables import describe_environments, mean_and_spread, mega

READING = f"""
A row's figure is its mean over the seeds ± their sample standard deviation, in percent: of images
recognised, or COCO's mean average precision. FLOPs are of one image, two for each multiply-add; "paper"
counts q·r in full and three for each batch norm with its ReLU, "executed" is what runs. Seconds are those
of a training, measuring included; trainings share the machine with others, so they say nothing of speed.

A comparison is a difference in percentage points. It is taken for each seed by itself; a two-sided t-test
over the seeds (a paired t-test) gives p and the 95 % interval. Verdicts:

| verdict | meaning |
|---|---|
| holds | ours points where the paper's does, and p < {LEVEL} |
| holds, not sure | it points there, and is larger than its standard error, but p is not below {LEVEL} |
| undecided | it is no larger than its standard error |
| reversed, not sure | as "holds, not sure", the other way |
| reversed | as "holds", the other way |
| differs; differs, not sure | likewise, where the paper prints no figure |
| {TIE} | the paper prints the same figure twice |
| {SAME} | at this scale both rows are one network, which is trained once |
| {WAITING} | fewer than two seeds are done |

Verdicts are not corrected for how many comparisons there are; under each table stands how many, and how
many of the sure ones stay so if p is multiplied by that number (Bonferroni). With three seeds a difference
is sure only if it is more than about two and a half times its standard deviation over the seeds: "not sure"
may be for want of seeds. Kendall's τ compares two orders: 1 is the same, 0 unrelated, -1 the opposite.
""".strip()
_ROWS = ("row", "paper %", "here %", "seeds", "parameters", "MFLOPs (paper)", "MFLOPs (executed)", "seconds")
_COMPARISONS = ("comparison", "paper", "here", "95 % interval", "p", "verdict")


def report(document: dict[str, Any], pictured: Collection[str] = ()) -> str:
    """Return the page.

    Args:
        document: results, as `paper_report.complete` gives them.
        pictured: names of experiments whose pictures lie beside the page.
    """
    parts = [f"# The paper's tables on {describe_data(document)}", _status(document)]
    parts += [f"## Claims\n\n{_claims(document)}", f"## Reading\n\n{READING}"]
    for name, experiment in document["experiments"].items():
        title = experiment["title"]
        picture = [f"![{title}]({name}.png)"] if name in pictured else []
        section = [f"## {title}", *_section(experiment), *picture]
        parts.append("\n\n".join(part for part in section if part))
    return "\n\n".join(part for part in parts if part) + "\n"


def describe_data(document: dict[str, Any], *tasks: str) -> str:
    """Name the images of some tasks, of all those in the document if none is named, and the scale."""
    request = document["request"]
    known = {experiment["task"] for experiment in document["experiments"].values()} if not tasks else {*tasks}
    roots = [request[name] for task, name in _DATA_OF.items() if task in known]
    kinds = [_KINDS.get(data["kind"], Path(str(data["root"])).name) for data in roots]
    return f"{' and '.join(kinds)}, scale {document['scale']['name']}"


_DATA_OF = {CLASSIFICATION: "data", DETECTION: "detection_data"}
_KINDS = {"fashion_mnist": "Fashion-MNIST", "digits": "digits", "scenes": "scenes"}


def _status(document: dict[str, Any]) -> str:
    runs = {
        run["run"]: run
        for experiment in document["experiments"].values()
        for row in experiment["rows"]
        for run in row["runs"]
    }
    done = sum(run["train_seconds"] is not None for run in runs.values())
    failed = [name for name, run in runs.items() if run.get("failed")]
    seeds = document["request"]["seeds"]
    words = [
        f"{done} of {len(runs)} trainings are done, with {seeds} seed{'s' if seeds > 1 else ''} a network."
    ]
    words += [f"Failed: {', '.join(failed)}."] if failed else []
    environments = document["environments"]
    if environments:
        words.append(describe_environments([one | {"seed": s} for one in environments for s in range(seeds)]))
    return " ".join([*words, f"Measured by `{command(document)}`."])


def command(document: dict[str, Any]) -> str:
    """Return the command line that measures this."""
    request = document["request"]
    data = request["data"]
    named = Path(str(data["root"])).name if data["kind"] == "folder" else data["kind"].replace("_", "-")
    options = ["--scale", request["scale"], "--data", named, "--seeds", str(request["seeds"])]
    if request["detection_data"]["kind"] == "coco":
        options += ["--detection-data", Path(str(request["detection_data"]["root"])).name]
    for name, value in request["limits"]:
        options += [f"--limit-{name.replace('_', '-')}", str(value)]
    return " ".join(["lookaround paper run", *document["experiments"], *options])


def _claims(document: dict[str, Any]) -> str:
    savings = [Saving(**each) for each in document["savings"]]
    claims = [Comparison(**each) for each in document["claims"]]
    parts = []
    if savings:
        rows = [
            [one.text, _changes(one.printed_percent), _changes(one.percent), one.verdict] for one in savings
        ]
        parts += ["Counted, change against convolution at each depth:"]
        parts += [markdown_table(["claim", "paper", "here", "verdict"], rows, words_first(4, 4))]
    if claims:
        parts += ["Measured, differences in percentage points:", comparison_table(claims), _how_many(claims)]
    return "\n\n".join(part for part in parts if part)


def _changes(percents: Sequence[float | None]) -> str:
    if not any(value is not None for value in percents):
        return "–"
    return ", ".join("–" if value is None else f"{value:+.0f} %" for value in percents)


def _section(experiment: dict[str, Any]) -> list[str]:
    rows = experiment["rows"]
    images = {row["measured_on"] for row in rows}
    parts = [f"Measured on {' and '.join(_IMAGES[name] for name in sorted(images))}."]
    parts.append(markdown_table(_ROWS, [_row(row) for row in rows], words_first(len(_ROWS))))
    comparisons = [Comparison(**each) for each in experiment["comparisons"]]
    if comparisons:
        parts += [comparison_table(comparisons), _how_many(comparisons)]
    if experiment["ranking"] is not None:
        parts.append(_order(Ranking(**experiment["ranking"])))
    return [*parts, *_shared(rows)]


_IMAGES = {"test": "the test images", "held-out": "training images that were held out"}


def _row(row: dict[str, Any]) -> list[str]:
    figures = [run["figure"] for run in row["runs"] if run["figure"] is not None]
    printed = row["paper"]["percent"]
    seconds = [run["train_seconds"] for run in row["runs"] if run["train_seconds"] is not None]
    counts = [row["paper_flops"], row["executed_flops"]]
    return [
        row["label"],
        "–" if printed is None else f"{printed:.1f}",
        mean_and_spread([100 * figure for figure in figures], ".2f"),
        str(len(figures)),
        "–" if row["parameters"] is None else f"{row['parameters']:,}",
        *("–" if count is None else mega(count) for count in counts),
        f"{sum(seconds) / len(seconds):.0f}" if seconds else "–",
    ]


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """Return the comparisons as a table."""
    left = [True, False, False, False, False, True]
    return markdown_table(_COMPARISONS, [_comparison(one) for one in comparisons], left)


def _comparison(one: Comparison) -> list[str]:
    ends = (one.low, one.high)
    interval = "–" if one.low is None or one.high is None else " … ".join(f"{end:+.2f}" for end in ends)
    return [
        one.text,
        "–" if one.printed_points is None else f"{one.printed_points:+.1f}",
        "–" if one.mean is None else f"{one.mean:+.2f}",
        interval,
        "–" if one.p is None else "<0.001" if one.p < 0.001 else f"{one.p:.3f}",
        one.verdict,
    ]


def _how_many(comparisons: Sequence[Comparison]) -> str:
    tested = [one.p for one in comparisons if one.p is not None]
    sure = [p for p in tested if p < LEVEL]
    strict = sum(p * len(tested) < LEVEL for p in sure)
    if not tested:
        return ""
    number = len(tested)
    kept = f"; {strict} of them also with p times {number}" if sure and number > 1 else ""
    chance = f"If nothing differed, {number * LEVEL:.2g} would be expected by chance."
    return f"{number} comparison{'s' if number > 1 else ''}, {len(sure)} with p < {LEVEL}{kept}. {chance}"


def _order(ranking: Ranking) -> str:
    by_seed = ", ".join(f"{tau:+.2f}" for tau in ranking.by_seed)
    seeds = f"; by seed {by_seed}" if by_seed else ""
    return (
        f"Order of the {ranking.rows} rows, the paper's against ours: Kendall's τ {ranking.tau:+.2f}, "
        f"p {ranking.p:.2f}{seeds}."
    )


def _shared(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Say which rows are one network at this scale."""
    same: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        same.setdefault(tuple(run["run"] for run in row["runs"]), []).append(row["label"])
    return [
        f"At this scale these rows are one network, trained once: {'; '.join(labels)}."
        for labels in same.values()
        if len(labels) > 1
    ]
