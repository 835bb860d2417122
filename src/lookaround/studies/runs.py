"""Finished runs side by side, read from their folders."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lookaround.errors import DataError, message
from lookaround.models import create_model, model_costs
from lookaround.models.checkpoint import read_record
from lookaround.models.variants import DETECTION, VARIANTS, task_of
from lookaround.training.files import read_rows, write_json, write_text

HEADER = (
    "run",
    "network",
    "parameters",
    "MFLOPs (paper)",
    "MFLOPs (executed)",
    "test accuracy",
    "epochs",
    "seconds",
)


@dataclass(frozen=True)
class FinishedRun:
    """One row of the table.

    Attributes:
        run: name of the run's folder.
        network: the named model.
        parameters: trainable numbers.
        paper_flops: of one image, as the paper counts; two for each multiply-add.
        executed_flops: of one image, as they are executed.
        test_accuracy: share of the test images that was recognised.
        epochs: how often it saw each training image.
        train_seconds: wall-clock time of the epochs, validation included.
        environment: what `environment.json` says: versions, hardware, threads, commit, seed.
    """

    run: str
    network: str
    parameters: int
    paper_flops: int
    executed_flops: int
    test_accuracy: float
    epochs: int
    train_seconds: float
    environment: dict[str, Any]


def read_run(folder: Path) -> FinishedRun:
    """Read the row of a run that was trained (`lookaround fit`) and tested (`lookaround test`).

    Raises:
        DataError: the folder is no run folder, or the run was not tested yet.
        CheckpointError: its model.json cannot be read.
    """
    record = read_record(folder)
    if record.name in VARIANTS and task_of(record.name) == DETECTION:
        must = "runs of classifiers are compared with runs of classifiers alone"
        raise DataError(message("compare", must, f"{record.name} in {folder}"))
    tested, environment = _read_json(folder, "test.json"), _read_json(folder, "environment.json")
    rows = read_rows(folder / "metrics.csv")
    costs = model_costs(create_model(record.name, **record.overrides), record.preprocessing["image_size"])
    return FinishedRun(
        run=folder.name,
        network=record.name,
        parameters=costs.parameters,
        paper_flops=costs.paper_flops,
        executed_flops=costs.executed_flops,
        test_accuracy=tested["test_accuracy"],
        epochs=len(rows),
        train_seconds=math.fsum(row["epoch_seconds"] for row in rows),
        environment=environment,
    )


def runs_table(runs: Sequence[FinishedRun], note: str | None = None) -> str:
    """The runs as a Markdown table, and under it what they ran on and what a reader must know."""
    lines = [HEADER, *(_cells(run) for run in runs)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [" | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]
    rule = " | ".join(["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    table = "\n".join(f"| {line} |" for line in [text[0], rule, *text[1:]])
    return "\n\n".join([table, _conditions(runs), *([note] if note is not None else [])])


def write_runs(runs: Sequence[FinishedRun], path: Path, note: str | None = None) -> None:
    """Write the rows as JSON, and the table beside it as Markdown."""
    write_json(path, {"note": note, "runs": [asdict(run) for run in runs]})
    write_text(path.with_suffix(".md"), f"{runs_table(runs, note)}\n")


def _cells(run: FinishedRun) -> tuple[str, ...]:
    flops = (f"{run.paper_flops / 1e6:.1f}", f"{run.executed_flops / 1e6:.1f}")
    measured = (f"{run.test_accuracy:.2%}", str(run.epochs), f"{run.train_seconds:.0f}")
    return (run.run, run.network, f"{run.parameters:,}", *flops, *measured)


def _conditions(runs: Sequence[FinishedRun]) -> str:
    """Say what the runs share; where they differ, every value."""
    environments = [run.environment for run in runs]
    facts = {
        "cpu": [f"{e['cpu']['model']}, {e['cpu']['cores']} cores" for e in environments],
        "gpu": [e["gpus"][0]["name"] if e["gpus"] else "none" for e in environments],
        "threads": [str(e["cpu"]["threads"]) for e in environments],
        "torch": [e["versions"]["torch"] for e in environments],
        "seed": [str(e["seed"]) for e in environments],
        "commit": [str(e["commit"])[:12] for e in environments],
    }
    shared = "; ".join(f"{name} {', '.join(dict.fromkeys(values))}" for name, values in facts.items())
    return f"FLOPs are of one image, two for each multiply-add; seconds are those of the training. {shared}."


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        hint = "run `lookaround test` on the run first." if name == "test.json" else "name a run folder."
        raise DataError(message("compare", f"the folder must hold {name}", folder, hint=hint))
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document
