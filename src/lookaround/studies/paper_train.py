"""One training of the paper's tables, in a run folder like any other, and what such a folder says of it."""

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lookaround.errors import CheckpointError
from lookaround.models.variants import DETECTION
from lookaround.studies.paper_jobs import Job
from lookaround.training.files import read_rows, write_text

RECIPE, LOG, ERROR = "recipe.yaml", "log.txt", "error.txt"  # beside what every run writes
WEIGHTS, MEASURED, ENVIRONMENT = "weights.safetensors", "test.json", "environment.json"


@dataclass(frozen=True)
class Finished:
    """What a finished run measured.

    Attributes:
        test: share of the test images that was recognised, or mean average precision; None where there are
            no such images.
        held_out: the same of the training images that were set aside, by the weights of the end.
        train_seconds: wall-clock time of the epochs, measuring included.
        environment: versions, hardware, threads, commit; see `training.environment`. None where the folder
            does not tell.
    """

    test: float | None
    held_out: float | None
    train_seconds: float
    environment: dict[str, Any] | None = None


def train(out: Path, job: Job, keep_checkpoints: bool = False) -> None:
    """Train and measure, or go on where it stopped; what is done already is not done again.

    Args:
        out: folder of the run folders.
        job: what to train.
        keep_checkpoints: whether to keep them beside the weights once everything is measured.

    Raises:
        LookaroundError: the settings, the data or the training are at fault.
    """
    folder = out / job.name
    settings = job.settings
    if job.backbone is not None:
        settings = settings | {"model": settings["model"] | {"backbone": str(out / job.backbone)}}
    write_text(folder / RECIPE, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    words = ["--config", str(folder / RECIPE), "--out", str(out), "--name", job.name]
    if not (folder / WEIGHTS).is_file():
        _fit(words, folder)
    if job.has_test and not (folder / MEASURED).is_file():
        _command("test", words)
    if not keep_checkpoints:
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _fit(words: list[str], folder: Path) -> None:
    if (folder / "checkpoints" / "last.ckpt").is_file():
        try:
            _command("fit", [*words, "--resume"])
        except CheckpointError as error:  # a checkpoint that was cut off, as by a loss of power
            print(f"{error}\nbeginning anew")
        else:
            return
    _command("fit", [*words, "--overwrite"])


def _command(name: str, words: list[str]) -> None:
    from lookaround.training.command import run_command  # which imports Lightning, and that takes seconds

    run_command(name, words)


def is_finished(job: Job, out: Path) -> bool:
    """Tell whether a run was trained and measured."""
    names = (WEIGHTS, MEASURED) if job.has_test else (WEIGHTS,)
    return all((out / job.name / name).is_file() for name in names)


def read_finished(job: Job, out: Path) -> Finished:
    """Read what a finished run measured."""
    folder = out / job.name
    figure = "map" if job.task == DETECTION else "accuracy"
    rows = read_rows(folder / "metrics.csv")
    held_out = rows[-1].get(f"val_{figure}") if rows else None
    # Of COCO's test images nobody knows the boxes: its validation part is the test.
    test = held_out if job.settings["data"]["dataset"] == "coco" else None
    if job.has_test:
        test = json.loads((folder / MEASURED).read_text(encoding="utf-8")).get(f"test_{figure}")
    seconds = math.fsum(row["epoch_seconds"] for row in rows)
    return Finished(test, held_out, seconds, _read_environment(folder))


def _read_environment(folder: Path) -> dict[str, Any] | None:
    path = folder / ENVIRONMENT
    if not path.is_file():
        return None
    environment: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return environment
