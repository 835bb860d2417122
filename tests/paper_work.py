"""What a study's workers do in tests instead of training."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crew_work import act, log_of
from lookaround.errors import DataError
from lookaround.models import create_model
from lookaround.models.checkpoint import save_model
from lookaround.studies.paper_jobs import Job
from lookaround.studies.paper_workers import Outcome, attempt, printing_into
from lookaround.training.files import write_json, write_rows

__all__ = ["ENVIRONMENT", "STARTS", "HereCrew", "act", "log_of", "train"]
STARTS = "starts.txt"


@dataclass
class HereCrew:
    """Does in this process what a crew's workers do, which saves their start."""

    work: Callable[[Any], None]
    log: Callable[[Any], Path]
    workers: int = 1

    def run(self, jobs: Sequence[Any]) -> Iterator[Outcome[Any]]:
        for job in jobs:
            with printing_into(self.log(job)):
                error = attempt(self.work, job)
            yield Outcome(job, error, 0.5)


ENVIRONMENT = {
    "python": "3.11",
    "platform": "a platform",
    "versions": {"torch": "2.15.0"},
    "commit": "0123456789abcdef",
    "cpu": {"model": "a processor", "cores": 2, "threads": 1},
    "gpus": [],
}


def train(out: Path, job: Job) -> None:
    """Leave what a finished run leaves, with figures that tell the seed; fail with position none."""
    folder = out / job.name
    with (out.parent / STARTS).open("a") as file:
        file.write(f"{job.name}\n")
    if job.network.overrides.get("position") == "none" and not (out.parent / "mended").exists():
        raise DataError("train: the position must be known; got none.\nhint: mend it.")
    classes = {"num_classes": 10, "in_channels": 1}  # as the digits have
    preprocessing = {"image_size": 8, "in_channels": 1, "mean": [0.0], "std": [1.0], "crop_fraction": 1.0}
    save_model(
        create_model(job.network.model, **job.network.overrides | classes),
        folder,
        preprocessing=preprocessing,
        class_names=list("0123456789"),
        metrics={},
    )
    write_rows(
        folder / "metrics.csv", [{"epoch": 1, "val_accuracy": 0.25 + job.seed / 10, "epoch_seconds": 2}]
    )
    write_json(folder / "environment.json", ENVIRONMENT | {"seed": job.seed, "status": "finished"})
    if job.has_test:
        write_json(folder / "test.json", {"test_accuracy": 0.5 + job.seed / 10})
