"""Finished runs of detectors as a table: a row for each form, its figures as mean and spread over seeds.

The form is that of Table 2 of "Stand-Alone Self-Attention in Vision Models": which of backbone, pyramid and
heads convolve and which attend.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lookaround.errors import DataError, message
from lookaround.models import RetinaNetConfig, create_model, model_costs
from lookaround.models.checkpoint import read_record
from lookaround.studies.markdown import markdown_table, words_first
from lookaround.studies.run_tables import (
    describe_environments,
    mean_and_spread,
    mega,
    read_run_files,
    with_remarks,
)

FIGURES = ("map", "map50", "map75")
HEADER = (
    "backbone",
    "pyramid",
    "heads",
    "mAP",
    "AP50",
    "AP75",
    "seeds",
    "parameters",
    "MFLOPs (paper)",
    "MFLOPs (executed)",
    "epochs",
    "seconds",
)
REMARK = (
    "Figures are COCO's, of the test images: mean ± sample standard deviation over the seeds. FLOPs are of "
    "one image, two for each multiply-add; seconds are those of a training, validation included."
)


@dataclass(frozen=True)
class DetectionRun:
    """A run that was trained and tested.

    Attributes:
        run: name of the run's folder.
        network: the named model.
        backbone: "convolution", "convolutional stem, attention" or "attention".
        pyramid: "convolution" or "attention".
        heads: likewise.
        parameters: trainable numbers.
        paper_flops: of one image, as the paper counts; two for each multiply-add.
        executed_flops: of one image, as they are executed.
        figures: COCO's figures of the test images, by name.
        epochs: how often it saw each training image.
        train_seconds: wall-clock time of the epochs, validation included.
        environment: what `environment.json` says: versions, hardware, threads, commit, seed.
    """

    run: str
    network: str
    backbone: str
    pyramid: str
    heads: str
    parameters: int
    paper_flops: int
    executed_flops: int
    figures: dict[str, float | None]
    epochs: int
    train_seconds: float
    environment: dict[str, Any]

    @property
    def form(self) -> tuple[str, ...]:
        """What runs with different seeds have in common."""
        return (self.network, self.backbone, self.pyramid, self.heads, str(self.epochs))


def read_detection_run(folder: Path) -> DetectionRun:
    """Read a detector's run that was trained (`lookaround fit`) and tested (`lookaround test`).

    Raises:
        DataError: the folder is no run folder of a detector, or the run was not tested yet.
        CheckpointError: its model.json cannot be read.
    """
    record = read_record(folder)
    model = create_model(record.name, **record.overrides)
    if not isinstance(model.config, RetinaNetConfig):
        must = "runs of detectors are compared with runs of detectors alone"
        raise DataError(message("compare", must, f"{record.name} in {folder}"))
    files = read_run_files(folder)
    costs = model_costs(model, record.preprocessing["image_size"])
    figures = {
        name.removeprefix("test_"): value for name, value in files.tested.items() if name != "checkpoint"
    }
    return DetectionRun(
        run=folder.name,
        network=record.name,
        backbone=_backbone(model.config),
        pyramid=model.config.pyramid,
        heads=model.config.heads,
        parameters=costs.parameters,
        paper_flops=costs.paper_flops,
        executed_flops=costs.executed_flops,
        figures=figures,
        epochs=files.epochs,
        train_seconds=files.train_seconds,
        environment=files.environment,
    )


def _backbone(config: RetinaNetConfig) -> str:
    if not config.attention_stages:
        return "convolution"
    return "attention" if config.stem == "attention" else "convolutional stem, attention"


def forms_table(runs: Sequence[DetectionRun], note: str | None = None) -> str:
    """A Markdown table with a row for each form, and under it what they ran on."""
    forms: dict[tuple[str, ...], list[DetectionRun]] = {}
    for run in runs:
        forms.setdefault(run.form, []).append(run)
    rows = [_cells(members) for members in forms.values()]
    shared = describe_environments([run.environment for run in runs])
    return with_remarks(
        markdown_table(HEADER, rows, words_first(len(HEADER), words=3)), f"{REMARK} {shared}", note
    )


def _cells(members: Sequence[DetectionRun]) -> tuple[str, ...]:
    run = members[0]
    figures = [mean_and_spread([member.figures.get(name) for member in members]) for name in FIGURES]
    flops = (mega(run.paper_flops), mega(run.executed_flops))
    seconds = statistics.mean(member.train_seconds for member in members)
    counts = (str(len(members)), f"{run.parameters:,}", *flops, str(run.epochs), f"{seconds:.0f}")
    return (run.backbone, run.pyramid, run.heads, *figures, *counts)
