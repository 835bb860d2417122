"""What the runs of the paper's tables say, for people: one Markdown page, and a picture of each table."""

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

from lookaround.studies.paper_comparisons import Ranking, compare_claims, compare_rows, rank
from lookaround.studies.paper_page import report
from lookaround.studies.paper_savings import find_savings
from lookaround.training.files import write_json, write_text

PAGE, RECORD = "results.md", "results.json"


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Return the results with what follows from them: comparisons, rankings, claims and savings."""
    experiments = document["experiments"]
    judged = {
        name: {
            **one,
            "comparisons": [dataclasses.asdict(each) for each in compare_rows(name, experiments)],
            "ranking": _plain(rank(one["rows"])),
        }
        for name, one in experiments.items()
    }
    return {
        **document,
        "experiments": judged,
        "claims": [dataclasses.asdict(each) for each in compare_claims(experiments)],
        "savings": [dataclasses.asdict(each) for each in find_savings(experiments)],
    }


def _plain(ranking: Ranking | None) -> dict[str, Any] | None:
    return None if ranking is None else dataclasses.asdict(ranking)


def without_paths(document: dict[str, Any]) -> dict[str, Any]:
    """Return the results without the folders that they were made from."""
    request = dict(document["request"])
    for name in ("data", "detection_data"):
        root = request[name]["root"]
        request[name] = request[name] | {"root": None if root is None else Path(root).name}
    return document | {"request": request}


def write_report(document: dict[str, Any], out: Path, draw: Collection[str] = ()) -> list[Path]:
    """Write results.json, results.md and the pictures of some experiments; return their paths.

    Args:
        document: what `paper_results.collect_results` gives, or was read from results.json.
        out: the folder.
        draw: names of experiments; their pictures that are there already stay on the page in any case.
    """
    completed = complete(document)
    write_json(out / RECORD, completed)
    pictures = []
    if draw:
        from lookaround.studies.paper_plots import draw_experiment

        drawn = [draw_experiment(name, completed, out) for name in completed["experiments"] if name in draw]
        pictures = [path for path in drawn if path is not None]
    write_text(out / PAGE, report(completed, {path.stem for path in out.glob("*.png")}))
    return [out / RECORD, out / PAGE, *pictures]
