"""Finished runs side by side, read from their folders."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lookaround.errors import DataError, message
from lookaround.models import create_model, model_costs
from lookaround.models.checkpoint import read_record
from lookaround.models.variants import DETECTION, VARIANTS, task_of
from lookaround.studies.markdown import markdown_table, words_first
from lookaround.studies.run_tables import describe_environments, mega, read_run_files, with_remarks

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
REMARK = "FLOPs are of one image, two for each multiply-add; seconds are those of the training."


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
    files = read_run_files(folder)
    costs = model_costs(create_model(record.name, **record.overrides), record.preprocessing["image_size"])
    return FinishedRun(
        run=folder.name,
        network=record.name,
        parameters=costs.parameters,
        paper_flops=costs.paper_flops,
        executed_flops=costs.executed_flops,
        test_accuracy=files.tested["test_accuracy"],
        epochs=files.epochs,
        train_seconds=files.train_seconds,
        environment=files.environment,
    )


def runs_table(runs: Sequence[FinishedRun], note: str | None = None) -> str:
    """The runs as a Markdown table, and under it what they ran on and what a reader must know."""
    table = markdown_table(HEADER, [_cells(run) for run in runs], words_first(len(HEADER)))
    shared = describe_environments([run.environment for run in runs])
    return with_remarks(table, f"{REMARK} {shared}", note)


def _cells(run: FinishedRun) -> tuple[str, ...]:
    flops = (mega(run.paper_flops), mega(run.executed_flops))
    measured = (f"{run.test_accuracy:.2%}", str(run.epochs), f"{run.train_seconds:.0f}")
    return (run.run, run.network, f"{run.parameters:,}", *flops, *measured)
