"""What the runs of the paper's tables measured so far, row by row, as one JSON file."""

import dataclasses
import json
import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lookaround.errors import ConfigError, DataError, message
from lookaround.models import create_model
from lookaround.models.checkpoint import read_record as read_model_record
from lookaround.models.costs import Costs, model_costs
from lookaround.studies.paper_jobs import Data, Job, Request, make_job
from lookaround.studies.paper_plan import HELD, Experiment, PlanRow
from lookaround.studies.paper_scale import find_scale
from lookaround.studies.paper_train import Finished

FILE = "results.json"
_OF_MACHINE = ("python", "platform", "versions", "commit", "cpu", "gpus")
_SAME = ("scale", "data", "detection_data")  # that runs of one folder must have in common


def read_results(out: Path, request: Request) -> dict[str, Any]:
    """Read the results of earlier calls; an empty mapping if there are none.

    Raises:
        ConfigError: they are of another scale or of other data.
    """
    path = out / FILE
    if not path.is_file():
        return {}
    document = read_record(out)
    asked = dataclasses.asdict(request)
    for name in _SAME:
        if document["request"][name] != asked[name]:
            must = f"--out must be empty or hold results of the same {name}"
            hint = "choose another --out."
            raise ConfigError(message("paper run", must, f"{document['request'][name]} in {path}", hint=hint))
    return document


def read_record(folder: Path) -> dict[str, Any]:
    """Read the results that a folder has kept.

    Raises:
        DataError: there are none.
    """
    path = folder / FILE
    if not path.is_file():
        hint = "name the --out of `lookaround paper run`."
        raise DataError(message("paper report", f"the folder must hold {FILE}", folder, hint=hint))
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def read_request(document: Mapping[str, Any]) -> Request:
    """Return the request that results were made by."""
    request = document["request"]
    return Request(
        scale=request["scale"],
        data=Data(**request["data"]),
        detection_data=Data(**request["detection_data"]),
        seeds=request["seeds"],
        limits=tuple((name, value) for name, value in request["limits"]),
        backbones=request.get("backbones", False),
    )


def collect_results(
    experiments: Sequence[Experiment],
    request: Request,
    finished: Mapping[str, Finished],
    costs: Mapping[str, Costs],
    failed: Collection[str] = (),
) -> dict[str, Any]:
    """Return every row of the experiments, measured or not yet, in plain types.

    Args:
        experiments: those whose rows are wanted.
        request: scale, data and seeds.
        finished: what was measured, by the name of a job.
        costs: of the networks, where they are known.
        failed: names of jobs that failed.
    """

    def row_of(row: PlanRow, experiment: Experiment) -> dict[str, Any]:
        jobs = [make_job(row, experiment.task, request, seed) for seed in range(request.seeds)]
        runs = [_run(job, row, finished.get(job.name)) | {"failed": job.name in failed} for job in jobs]
        return _row(row, experiment, jobs[0], runs, costs.get(str(jobs[0].network)))

    return {
        "request": dataclasses.asdict(request),
        "scale": dataclasses.asdict(find_scale(request.scale)),
        "training": {
            task: dataclasses.asdict(request.training(task))
            for task in dict.fromkeys(experiment.task for experiment in experiments)
        },
        "environments": _distinct([one.environment for one in finished.values()]),
        "experiments": {
            experiment.name: {
                "title": experiment.title,
                "task": experiment.task,
                "rows": [row_of(row, experiment) for row in experiment.rows],
            }
            for experiment in experiments
        },
    }


def _distinct(environments: Sequence[Mapping[str, Any] | None]) -> list[dict[str, Any]]:
    """What the runs ran on, each only once."""
    kept = [{name: one[name] for name in _OF_MACHINE} for one in environments if one is not None]
    return [one for number, one in enumerate(kept) if one not in kept[:number]]


def _row(
    row: PlanRow, experiment: Experiment, job: Job, runs: Sequence[Mapping[str, Any]], cost: Costs | None
) -> dict[str, Any]:
    figures = [run["figure"] for run in runs if run["figure"] is not None]
    return {
        "label": row.label,
        "group": row.group,
        "reference": experiment.reference_of(row).label,
        "model": job.network.model,
        "overrides": job.network.overrides,
        "measured_on": row.measured_on,
        "paper": {
            "percent": row.paper_percent,
            "parameters_millions": row.paper_parameters_millions,
            "flops_billions": row.paper_flops_billions,
        },
        "parameters": None if cost is None else cost.parameters,
        "paper_flops": None if cost is None else cost.paper_flops,
        "executed_flops": None if cost is None else cost.executed_flops,
        "runs": list(runs),
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
    record = read_model_record(folder)
    with torch.device("meta"):
        model = create_model(record.name, **record.overrides)
    return model_costs(model, record.preprocessing["image_size"])
