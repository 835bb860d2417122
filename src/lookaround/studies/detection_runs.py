"""Finished runs of detectors as a table: a row for each form, its figures as mean and spread over seeds.

The form is that of Table 2 of "Stand-Alone Self-Attention in Vision Models": which of backbone, pyramid and
heads convolve and which attend.
"""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lookaround.errors import DataError, message
from lookaround.models import RetinaNetConfig, create_model, model_costs
from lookaround.models.checkpoint import read_record
from lookaround.training.files import read_rows, write_json, write_text

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
    tested, environment = _read_json(folder, "test.json"), _read_json(folder, "environment.json")
    rows = read_rows(folder / "metrics.csv")
    costs = model_costs(model, record.preprocessing["image_size"])
    figures = {name.removeprefix("test_"): value for name, value in tested.items() if name != "checkpoint"}
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
        epochs=len(rows),
        train_seconds=math.fsum(row["epoch_seconds"] for row in rows),
        environment=environment,
    )


def _backbone(config: RetinaNetConfig) -> str:
    if not config.attention_stages:
        return "convolution"
    return "attention" if config.stem == "attention" else "convolutional stem, attention"


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        hint = "run `lookaround test` on the run first." if name == "test.json" else "name a run folder."
        raise DataError(message("compare", f"the folder must hold {name}", folder, hint=hint))
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def forms_table(runs: Sequence[DetectionRun], note: str | None = None) -> str:
    """A Markdown table with a row for each form, and under it what they ran on."""
    forms: dict[tuple[str, ...], list[DetectionRun]] = {}
    for run in runs:
        forms.setdefault(run.form, []).append(run)
    lines = [HEADER, *(_cells(members) for members in forms.values())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = [
        " | ".join([*map(str.ljust, line[:3], widths[:3]), *map(str.rjust, line[3:], widths[3:])])
        for line in lines
    ]
    dashes = ["-" * width for width in widths[:3]] + ["-" * (width - 1) + ":" for width in widths[3:]]
    rule = " | ".join(dashes)
    table = "\n".join(f"| {line} |" for line in [texts[0], rule, *texts[1:]])
    return "\n\n".join([table, _conditions(runs), *([note] if note is not None else [])])


def write_forms(runs: Sequence[DetectionRun], path: Path, note: str | None = None) -> None:
    """Write the runs as JSON, and the table beside it as Markdown."""
    write_json(path, {"note": note, "runs": [asdict(run) for run in runs]})
    write_text(path.with_suffix(".md"), f"{forms_table(runs, note)}\n")


def _cells(members: Sequence[DetectionRun]) -> tuple[str, ...]:
    run = members[0]
    figures = [_mean_and_spread([member.figures.get(name) for member in members]) for name in FIGURES]
    flops = (f"{run.paper_flops / 1e6:.1f}", f"{run.executed_flops / 1e6:.1f}")
    seconds = statistics.mean(member.train_seconds for member in members)
    counts = (str(len(members)), f"{run.parameters:,}", *flops, str(run.epochs), f"{seconds:.0f}")
    return (run.backbone, run.pyramid, run.heads, *figures, *counts)


def _mean_and_spread(values: Sequence[float | None]) -> str:
    """Write mean and sample standard deviation.

    Example:
        >>> _mean_and_spread([0.5, 0.52]), _mean_and_spread([0.5]), _mean_and_spread([None])
        ('0.510 ± 0.014', '0.500', '–')
    """
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    spread = f" ± {statistics.stdev(known):.3f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.3f}{spread}"


def _conditions(runs: Sequence[DetectionRun]) -> str:
    """Say what the figures mean and what the runs share; where they differ, every value."""
    environments = [run.environment for run in runs]
    facts = {
        "cpu": [f"{e['cpu']['model']}, {e['cpu']['cores']} cores" for e in environments],
        "gpu": [e["gpus"][0]["name"] if e["gpus"] else "none" for e in environments],
        "threads": [str(e["cpu"]["threads"]) for e in environments],
        "torch": [e["versions"]["torch"] for e in environments],
        "seeds": [str(e["seed"]) for e in environments],
        "commit": [str(e["commit"])[:12] for e in environments],
    }
    shared = "; ".join(f"{name} {', '.join(dict.fromkeys(values))}" for name, values in facts.items())
    return (
        "Figures are COCO's, of the test images: mean ± sample standard deviation over the seeds. FLOPs are "
        "of one image, two for each multiply-add; seconds are those of a training, validation included. "
        f"{shared}."
    )
