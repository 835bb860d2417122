"""What the workers of a cluster do in tests: as `paper_work.act`, and some things that need a cluster."""

import os
import signal
import time
from pathlib import Path

import paper_work
from lookaround.studies.paper_jobs import Job

PATIENCE_SECONDS = 60.0


def act(job: str) -> None:
    """Do what the last part of the job's name says."""
    kind = Path(job).name.split("-")[0]
    if kind == "lose" and _first_time(job):
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "meet":
        _first_time(job)
        until(lambda: len(list(Path(job).parent.glob("meet-*.begun"))) == 2)
    elif kind == "linger":
        _first_time(job)
        until(lambda: False)
    elif kind == "stay" and _first_time(job):
        time.sleep(PATIENCE_SECONDS)
    elif kind == "where":
        Path(job).write_text(os.getcwd())
        return
    elif kind == "hide":
        paper_work.log_of(job).unlink()
    paper_work.act(job)


def train(out: Path, job: Job) -> None:
    """Do `paper_work.train`; the first run of all loses its worker the first time."""
    (out / job.name).mkdir(parents=True, exist_ok=True)
    if _first_time(str(out / "lost")):
        os.kill(os.getpid(), signal.SIGKILL)
    paper_work.train(out, job)


def _first_time(job: str) -> bool:
    begun = Path(f"{job}.begun")
    try:
        begun.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def until(holds) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)
