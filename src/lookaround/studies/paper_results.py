"""What the runs of the paper's tables measured so far, row by row, as one JSON file."""

import dataclasses
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lookaround.errors import ConfigError, message
from lookaround.models import create_model
from lookaround.models.checkpoint import read_record
from lookaround.models.costs import Costs, model_costs
from lookaround.studies.paper_jobs import Job, Request, make_job
from lookaround.studies.paper_plan import HELD, Experiment, PlanRow
from lookaround.studies.paper_scale import find_scale
from lookaround.studies.paper_train import Finished
from lookaround.training.environment import describe_environment
from lookaround.training.files import write_json

FILE = "results.json"
_SAME = ("scale", "data", "detection_data")  # that runs of one folder must have in common


def read_results(out: Path, request: Request) -> dict[str, Any]:
    """Read the results of earlier calls; an empty mapping if there are none.

    Raises:
        ConfigError: they are of another scale or of other data.
    """
    path = out / FILE
    if not path.is_file():
        return {}
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    asked = dataclasses.asdict(request)
    for name in _SAME:
        if document["request"][name] != asked[name]:
            must = f"--out must be empty or hold results of the same {name}"
            hint = "choose another --out."
            raise ConfigError(message("paper run", must, f"{document['request'][name]} in {path}", hint=hint))
    return document


def write_results(
    out: Path,
    experiments: Sequence[Experiment],
    request: Request,
    finished: Mapping[str, Finished],
    costs: Mapping[str, Costs],
) -> None:
    """Write every row of the experiments, measured or not yet.

    Args:
        out: the folder of the study.
        experiments: those whose rows are wanted.
        request: scale, data and seeds.
        finished: what was measured, by the name of a job.
        costs: likewise, where they are known.
    """
    document = {
        "request": dataclasses.asdict(request),
        "scale": dataclasses.asdict(find_scale(request.scale)),
        "training": {
            task: dataclasses.asdict(request.training(task))
            for task in dict.fromkeys(experiment.task for experiment in experiments)
        },
        "environment": describe_environment(),
        "experiments": {
            experiment.name: {
                "title": experiment.title,
                "task": experiment.task,
                "rows": [_row(row, experiment.task, request, finished, costs) for row in experiment.rows],
            }
            for experiment in experiments
        },
    }
    write_json(out / FILE, document)


def _row(
    row: PlanRow, task: str, request: Request, finished: Mapping[str, Finished], costs: Mapping[str, Costs]
) -> dict[str, Any]:
    jobs = [make_job(row, task, request, seed) for seed in range(request.seeds)]
    runs = [_run(job, row, finished.get(job.name)) for job in jobs]
    figures = [run["figure"] for run in runs if run["figure"] is not None]
    cost = costs.get(jobs[0].name)
    return {
        "label": row.label,
        "group": row.group,
        "model": jobs[0].network.model,
        "overrides": jobs[0].network.overrides,
        "measured_on": row.measured_on,
        "paper": {
            "percent": row.paper_percent,
            "parameters_millions": row.paper_parameters_millions,
            "flops_billions": row.paper_flops_billions,
        },
        "parameters": None if cost is None else cost.parameters,
        "paper_flops": None if cost is None else cost.paper_flops,
        "executed_flops": None if cost is None else cost.executed_flops,
        "runs": runs,
        "mean": statistics.fmean(figures) if figures else None,
        "standard_deviation": statistics.stdev(figures) if len(figures) > 1 else None,
    }


def _run(job: Job, row: PlanRow, measured: Finished | None) -> dict[str, Any]:
    if measured is None:
        return {"seed": job.seed, "run": job.name, "figure": None, "train_seconds": None}
    figure = measured.held_out if row.measured_on == HELD else measured.test
    usable = figure is not None and math.isfinite(figure)
    return {
        "seed": job.seed,
        "run": job.name,
        "figure": figure if usable else None,
        "train_seconds": measured.train_seconds,
    }


def costs_of(folder: Path) -> Costs:
    """Count parameters and FLOPs of a finished run's network, at the size and classes of its data."""
    record = read_record(folder)
    with torch.device("meta"):
        model = create_model(record.name, **record.overrides)
    return model_costs(model, record.preprocessing["image_size"])
