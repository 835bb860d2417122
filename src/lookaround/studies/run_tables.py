"""What every table of finished runs needs: a run's files, what the runs ran on, and how it is written."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lookaround.errors import DataError, message
from lookaround.training.files import read_rows, write_json, write_text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True)
class RunFiles:
    """What a run that was trained and tested has left in its folder.

    Attributes:
        tested: `test.json`: figures of the test images.
        environment: `environment.json`: versions, hardware, threads, commit, seed.
        epochs: how often it saw each training image.
        train_seconds: wall-clock time of the epochs, validation included.
    """

    tested: dict[str, Any]
    environment: dict[str, Any]
    epochs: int
    train_seconds: float


def read_run_files(folder: Path) -> RunFiles:
    """Read what `lookaround fit` and `lookaround test` have left in a run folder.

    Raises:
        DataError: the folder is no run folder, or the run was not tested yet.
    """
    tested, environment = _read_json(folder, "test.json"), _read_json(folder, "environment.json")
    rows = read_rows(folder / "metrics.csv")
    seconds = math.fsum(row["epoch_seconds"] for row in rows)
    return RunFiles(tested, environment, epochs=len(rows), train_seconds=seconds)


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        hint = "run `lookaround test` on the run first." if name == "test.json" else "name a run folder."
        raise DataError(message("compare", f"the folder must hold {name}", folder, hint=hint))
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def mean_and_spread(values: Sequence[float | None], form: str = ".3f") -> str:
    """Write mean and sample standard deviation; None where a figure was not measured.

    Example:
        >>> mean_and_spread([0.5, 0.52]), mean_and_spread([0.5]), mean_and_spread([None])
        ('0.510 ± 0.014', '0.500', '–')
    """
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    spread = f" ± {statistics.stdev(known):{form}}" if len(known) > 1 else ""
    return f"{statistics.mean(known):{form}}{spread}"


def mega(number: int) -> str:
    """Write a count in millions.

    Example:
        >>> mega(63_312_345)
        '63.3'
    """
    return f"{number / 1e6:.1f}"


def describe_environments(environments: Sequence[Mapping[str, Any]]) -> str:
    """Say what the runs share of hardware, versions, seeds and commits; where they differ, every value."""
    seeds = list(dict.fromkeys(str(e["seed"]) for e in environments))
    facts = {
        "cpu": [f"{e['cpu']['model']}, {e['cpu']['cores']} cores" for e in environments],
        "gpu": [e["gpus"][0]["name"] if e["gpus"] else "none" for e in environments],
        "threads": [str(e["cpu"]["threads"]) for e in environments],
        "torch": [e["versions"]["torch"] for e in environments],
        "seed" if len(seeds) == 1 else "seeds": seeds,
        "commit": [str(e["commit"])[:12] for e in environments],
    }
    shared = "; ".join(f"{name} {', '.join(dict.fromkeys(values))}" for name, values in facts.items())
    return f"{shared}."


def with_remarks(table: str, remarks: str, note: str | None) -> str:
    """Put under a table what its figures mean, and what the reader must know besides."""
    return "\n\n".join([table, remarks, *([note] if note is not None else [])])


def write_runs(runs: Sequence["DataclassInstance"], table: str, path: Path, note: str | None = None) -> None:
    """Write runs as JSON, and their table beside it as Markdown."""
    write_json(path, {"note": note, "runs": [asdict(run) for run in runs]})
    write_text(path.with_suffix(".md"), f"{table}\n")
