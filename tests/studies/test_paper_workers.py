import os
import signal
import time
from functools import partial

import pytest

import crew_work
from lookaround.errors import BackendError
from lookaround.studies.paper_workers import Crew


def crew(workers=1):
    return Crew(crew_work.act, crew_work.log_of, workers, threads=1)


def test_one_worker_takes_job_after_job_whatever_they_meet(tmp_path):
    """In their order; one that dies is replaced, and nothing else is begun twice: to start takes seconds."""
    names = ["raise-1", "fine-1", "refuse-1", "die-1", "fine-2", "fine-3"]
    outcomes = list(crew().run([str(tmp_path / name) for name in names]))
    assert [outcome.job for outcome in outcomes] == [str(tmp_path / name) for name in names]
    errors = {name: outcome.error for name, outcome in zip(names, outcomes, strict=True)}
    assert [errors[name] for name in names if "fine" in name] == [None] * 3
    assert errors["refuse-1"] == "act: the images must be there; got none."
    assert errors["raise-1"].startswith("ZeroDivisionError: by zero\n")
    assert "crew_work.py" in errors["raise-1"]
    assert errors["die-1"] == "its process ended with exit code 3"
    assert all(outcome.seconds >= 0 for outcome in outcomes)
    log = (tmp_path / "logs" / "raise-1.txt").read_text()
    assert "acting on" in log
    assert "in compiled code" in log
    assert "ZeroDivisionError" in log
    before, after, later = ((tmp_path / f"fine-{number}").read_text() for number in (1, 2, 3))
    assert after == later
    assert len({before, after, str(os.getpid())}) == 3


def test_stopping_interrupts_what_is_running(tmp_path):
    outcomes = crew(2).run([str(tmp_path / "wait-1"), str(tmp_path / "fine-1")])
    next(outcomes)
    began = time.monotonic()
    outcomes.close()
    assert time.monotonic() - began < crew_work.WAIT_SECONDS / 2
    assert not (tmp_path / "wait-1").exists()


def test_workers_that_cannot_start_are_an_error():
    broken = Crew(partial(print), crew_work.log_of, 1, threads=-1)
    with pytest.raises(BackendError, match="the processes that train must start; got its process ended with"):
        list(broken.run(["job"]))


def test_no_jobs_need_no_workers():
    assert list(crew().run([])) == []


def test_workers_end_when_who_runs_them_is_gone(tmp_path):
    pid = os.fork()
    if pid == 0:
        list(crew().run([str(tmp_path / "wait-1")]))
        os._exit(0)
    _until((tmp_path / "wait-1.begun").exists)
    children = _children(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert children
    _until(lambda: not any(_alive(child) for child in children))


def _until(holds, seconds=crew_work.WAIT_SECONDS / 2):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)


def _children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
