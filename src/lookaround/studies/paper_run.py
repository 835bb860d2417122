"""Run the paper's tables: every training once, the results kept after each, whatever happens to one."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lookaround.data.scenes_to_make import ScenesToMake
from lookaround.errors import ArgumentError, message
from lookaround.studies.paper_images import without_test
from lookaround.studies.paper_jobs import Job, Request, make_jobs, phases
from lookaround.studies.paper_ledger import RUNS, Ledger, open_ledger
from lookaround.studies.paper_plan import Experiment
from lookaround.studies.paper_progress import Progress, duration
from lookaround.studies.paper_scale import find_scale
from lookaround.studies.paper_train import ERROR, LOG, Finished, train
from lookaround.studies.paper_workers import AnyCrew, Crew, Outcome
from lookaround.training.files import write_text

# Given what is done with a job, and the file for what it prints.
Engine = Callable[[Callable[[Job], None], Callable[[Job], Path]], AnyCrew[Job]]


@dataclass
class Study:
    """The tables that were asked for, in a folder.

    Attributes:
        out: the folder: `runs/` with a run folder for each training, and the report of them all.
        experiments: the tables.
        request: scale, data and seeds.
        say: what to do with a line for the user.
        train: what is done with a job: the folder of the run folders, and the job.
        draw_seconds: how much time is between two drawings of pictures; the page is written after each run.
        failed: why a job failed, by its name.
        ledger: what was measured, in this call and earlier ones; there is none before `run`.
    """

    out: Path
    experiments: Sequence[Experiment]
    request: Request
    say: Callable[[str], None] = print
    train: Callable[[Path, Job], None] = train
    draw_seconds: float = 60.0
    failed: dict[str, str] = field(default_factory=dict)
    ledger: Ledger | None = None

    @property
    def finished(self) -> dict[str, Finished]:
        """What was measured, by the name of a job."""
        return {} if self.ledger is None else self.ledger.finished

    def run(self, workers: int = 1, engine: Engine | None = None) -> None:
        """Do what is not done yet, and write the results after each run.

        Args:
            workers: how many runs at a time, each in a process of its own.
            engine: what makes those who do the runs; None: as many processes of this machine.

        Raises:
            ArgumentError: there is less than one worker.
            ConfigError: the folder holds results of something else.
            DataError: there are no images to measure on, or no scenes and they cannot be made.
        """
        if workers < 1:
            raise ArgumentError(message("paper run", "--workers must be at least 1", workers))
        self.ledger = ledger = open_ledger(self.out, self.experiments, self.request)
        jobs = make_jobs(self.experiments, ledger.request)
        waiting = [job for job in jobs if job.name not in ledger.finished]
        if without_test(self.experiments, self.request.data.kind, self.request.data.root):
            self.say("there are no test images: measured on held-out training images alone")
        self._say_what_is_to_do(jobs, waiting)
        if waiting:
            ledger.write()
            self._prepare(waiting)
            make = partial(Crew[Job], workers=workers) if engine is None else engine
            self._work(
                ledger,
                waiting,
                len(jobs),
                make(partial(self.train, ledger.runs), partial(log_of, ledger.runs)),
            )
        ledger.write(draw=ledger.names)

    def _work(self, ledger: Ledger, waiting: Sequence[Job], jobs: int, crew: AnyCrew[Job]) -> None:
        progress = Progress({job.name: job.work() for job in waiting}, jobs - len(waiting), crew.workers)
        pictures, drawn = set[str](), time.monotonic()
        for phase in phases(waiting):
            for outcome in crew.run(phase):
                self._keep(ledger, outcome)
                pictures |= ledger.experiments_with(outcome.job)
                if time.monotonic() - drawn >= self.draw_seconds:
                    ledger.write(draw=pictures)
                    pictures, drawn = set(), time.monotonic()
                else:
                    ledger.write()
                progress.end(outcome.job.name, outcome.seconds, outcome.error is not None)
                self.say(f"{progress.line()} {self._describe(ledger, outcome)}")

    def _keep(self, ledger: Ledger, outcome: Outcome[Job]) -> None:
        path = ledger.runs / outcome.job.name / ERROR
        if outcome.error is None:
            path.unlink(missing_ok=True)
        else:
            self.failed[outcome.job.name] = outcome.error
            write_text(path, f"{outcome.error.rstrip()}\n")
        ledger.read(outcome.job)

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

    def _describe(self, ledger: Ledger, outcome: Outcome[Job]) -> str:
        job = outcome.job
        if outcome.error is not None:
            first = outcome.error.strip().splitlines()[0]
            return f"{job.name} FAILED: {first} ({ledger.runs / job.name / ERROR})"
        measured = ledger.finished[job.name]
        return (
            f"{job.name}: test {_percent(measured.test)}, held out {_percent(measured.held_out)}, "
            f"{duration(outcome.seconds)}"
        )


def log_of(out: Path, job: Job) -> Path:
    """Where a run's output goes."""
    return out / job.name / LOG


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.2%}"
