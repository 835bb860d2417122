"""What a folder of the paper's runs says: which are done, what they measured, and the report of it all."""

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lookaround.models.costs import Costs
from lookaround.studies.paper_jobs import Job, Request, make_jobs
from lookaround.studies.paper_plan import EXPERIMENTS, Experiment
from lookaround.studies.paper_report import write_report
from lookaround.studies.paper_results import (
    collect_results,
    costs_of,
    read_record,
    read_request,
    read_results,
)
from lookaround.studies.paper_scale import find_scale
from lookaround.studies.paper_train import ERROR, Finished, is_finished, read_finished

RUNS = "runs"


@dataclass
class Ledger:
    """The runs of some tables in a folder.

    Attributes:
        out: the folder.
        experiments: the tables.
        request: scale, data and seeds.
        finished: what was measured, by the name of a job.
        failed: names of jobs that failed when they were run last.
        costs: parameters and FLOPs, by network.
    """

    out: Path
    experiments: Sequence[Experiment]
    request: Request
    finished: dict[str, Finished] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    costs: dict[str, Costs] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for job in make_jobs(self.experiments, self.request):
            self.read(job)

    @property
    def runs(self) -> Path:
        """Where the run folders are."""
        return self.out / RUNS

    @property
    def names(self) -> set[str]:
        """Of the experiments."""
        return {experiment.name for experiment in self.experiments}

    def read(self, job: Job) -> None:
        """Look at what a run has left."""
        if is_finished(job, self.runs):
            self.failed.discard(job.name)
            self.finished[job.name] = read_finished(job, self.runs)
            network = str(job.network)
            if network not in self.costs:
                self.costs[network] = costs_of(self.runs / job.name)
        elif (self.runs / job.name / ERROR).is_file():
            self.failed.add(job.name)

    def results(self) -> dict[str, Any]:
        """Return every row of the tables, measured or not yet, in plain types."""
        return collect_results(self.experiments, self.request, self.finished, self.costs, self.failed)

    def write(self, draw: Collection[str] = ()) -> None:
        """Write the report, and the pictures of some experiments."""
        write_report(self.results(), self.out, draw)

    def experiments_with(self, job: Job) -> set[str]:
        """Name the experiments that a run is part of."""
        return {
            experiment.name
            for experiment in self.experiments
            if any(job.name == other.name for other in make_jobs([experiment], self.request))
        }


def open_ledger(out: Path, experiments: Sequence[Experiment], request: Request) -> Ledger:
    """Open a folder's ledger for some tables and those of earlier calls.

    Raises:
        ConfigError: the folder holds results of something else.
    """
    earlier = read_results(out, request).get("experiments", {})
    names = {*earlier, *(experiment.name for experiment in experiments)}
    # What was learned on other images than colour pictures in a folder fits no detector.
    fitting = find_scale(request.scale).backbones and request.data.kind == "folder"
    request = dataclasses.replace(request, backbones=fitting and {"table1", "table2"} <= names)
    return Ledger(out, [one for one in EXPERIMENTS.values() if one.name in names], request)


def results_of(folder: Path) -> dict[str, Any]:
    """Return the results of a folder anew from its runs; where these are not there, those it has kept.

    Raises:
        DataError: the folder holds no results.
    """
    document = read_record(folder)
    if not (folder / RUNS).is_dir():
        return document
    experiments = [one for one in EXPERIMENTS.values() if one.name in document["experiments"]]
    return Ledger(folder, experiments, read_request(document)).results()
