"""Run the paper's tables: every training once, the results kept after each, whatever happens to one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lookaround.data.scenes_to_make import ScenesToMake
from lookaround.errors import ArgumentError, message
from lookaround.models.costs import Costs
from lookaround.studies.paper_jobs import Job, Request, make_jobs
from lookaround.studies.paper_plan import EXPERIMENTS, Experiment
from lookaround.studies.paper_progress import Progress, duration
from lookaround.studies.paper_results import costs_of, read_results, write_results
from lookaround.studies.paper_scale import find_scale
from lookaround.studies.paper_train import ERROR, LOG, Finished, is_finished, read_finished, train
from lookaround.studies.paper_workers import AnyCrew, Crew, Outcome
from lookaround.training.files import write_text

RUNS = "runs"
# Given what is done with a job, and the file for what it prints.
Engine = Callable[[Callable[[Job], None], Callable[[Job], Path]], AnyCrew[Job]]


@dataclass
class Study:
    """The tables that were asked for, in a folder.

    Attributes:
        out: the folder: `runs/` with a run folder for each training, and `results.json`.
        experiments: the tables.
        request: scale, data and seeds.
        say: what to do with a line for the user.
        train: what is done with a job: the folder of the run folders, and the job.
        finished: what was measured, by the name of a job.
        failed: why a job failed, by its name.
    """

    out: Path
    experiments: Sequence[Experiment]
    request: Request
    say: Callable[[str], None] = print
    train: Callable[[Path, Job], None] = train
    finished: dict[str, Finished] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    costs: dict[str, Costs] = field(default_factory=dict)

    def run(self, workers: int = 1, engine: Engine | None = None) -> None:
        """Do what is not done yet, and write the results after each run.

        Args:
            workers: how many runs at a time, each in a process of its own.
            engine: what makes those who do the runs; None: as many processes of this machine.

        Raises:
            ArgumentError: there is less than one worker.
            ConfigError: the folder holds results of something else.
            DataError: there are no scenes and they cannot be made.
        """
        if workers < 1:
            raise ArgumentError(message("paper run", "--workers must be at least 1", workers))
        self._join_earlier()
        jobs = make_jobs(self.experiments, self.request)
        waiting = self._take_finished(jobs)
        self._write()
        self._say_what_is_to_do(jobs, waiting)
        if not waiting:
            return
        self._prepare(waiting)
        make = partial(Crew[Job], workers=workers) if engine is None else engine
        crew = make(partial(self.train, self.out / RUNS), partial(log_of, self.out / RUNS))
        progress = Progress({job.name: job.work() for job in waiting}, len(jobs) - len(waiting), crew.workers)
        for outcome in crew.run(waiting):
            self._keep(outcome)
            progress.end(outcome.job.name, outcome.seconds, outcome.error is not None)
            self.say(f"{progress.line()} {self._describe(outcome)}")

    def _join_earlier(self) -> None:
        """Keep the tables and seeds of an earlier call in the results."""
        earlier = read_results(self.out, self.request).get("experiments", {})
        names = {*earlier, *(experiment.name for experiment in self.experiments)}
        self._reported = [experiment for experiment in EXPERIMENTS.values() if experiment.name in names]

    def _take_finished(self, jobs: Sequence[Job]) -> list[Job]:
        for job in make_jobs(self._reported, self.request):
            if is_finished(job, self.out / RUNS):
                self._read(job)
        return [job for job in jobs if job.name not in self.finished]

    def _read(self, job: Job) -> None:
        self.finished[job.name] = read_finished(job, self.out / RUNS)
        self.costs[job.name] = costs_of(self.out / RUNS / job.name)

    def _keep(self, outcome: Outcome[Job]) -> None:
        job, error = outcome.job, outcome.error
        path = self.out / RUNS / job.name / ERROR
        if error is None:
            path.unlink(missing_ok=True)
            self._read(job)
        else:
            self.failed[job.name] = error
            write_text(path, f"{error.rstrip()}\n")
        self._write()

    def _write(self) -> None:
        write_results(self.out, self._reported, self.request, self.finished, self.costs)

    def _prepare(self, jobs: Sequence[Job]) -> None:
        """Make the scenes before two runs do so at a time."""
        for job in jobs:
            data = job.settings["data"]
            if data["dataset"] == "scenes" and not Path(data["root"]).exists():
                ScenesToMake(**find_scale(self.request.scale).scenes).write(Path(data["root"]))  # type: ignore[arg-type]

    def _say_what_is_to_do(self, jobs: Sequence[Job], waiting: Sequence[Job]) -> None:
        rows = sum(len(experiment.rows) for experiment in self.experiments)
        names = ", ".join(experiment.name for experiment in self.experiments)
        done = len(jobs) - len(waiting)
        already = f", {done} of them done already" if done else ""
        self.say(
            f"{names}: {rows} rows, {self.request.seeds} seeds, {len(jobs)} trainings{already}; "
            f"run folders in {self.out / RUNS}"
        )

    def _describe(self, outcome: Outcome[Job]) -> str:
        job = outcome.job
        if outcome.error is not None:
            first = outcome.error.strip().splitlines()[0]
            return f"{job.name} FAILED: {first} ({self.out / RUNS / job.name / ERROR})"
        measured = self.finished[job.name]
        return (
            f"{job.name}: test {_percent(measured.test)}, held out {_percent(measured.held_out)}, "
            f"{duration(outcome.seconds)}"
        )


def log_of(out: Path, job: Job) -> Path:
    """Where a run's output goes."""
    return out / job.name / LOG


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.2%}"
