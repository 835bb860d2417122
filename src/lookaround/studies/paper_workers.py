"""Processes that take one job after the other, so that what they import is imported once.

A job that raises is reported and its worker goes on; a worker that dies is replaced. Workers do not hear
Ctrl-C themselves: whoever runs them stops them, and they stop by themselves when he is gone.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from lookaround.errors import BackendError, LookaroundError, message

J = TypeVar("J")
STOP_SECONDS = 20.0  # that a worker has to stop by itself


@dataclass(frozen=True)
class Outcome(Generic[J]):
    """How a job ended.

    Attributes:
        job: the job.
        error: what it raised, with its traceback if that was not on purpose; None if all went well.
        seconds: how long it took.
    """

    job: J
    error: str | None
    seconds: float


@runtime_checkable
class AnyCrew(Protocol[J]):
    """Workers, wherever they are: how many there are at a time, and what they do."""

    @property
    def workers(self) -> int:
        """How many jobs there are at a time."""

    def run(self, jobs: Sequence[J]) -> Iterator[Outcome[J]]:
        """Do all jobs, begun in their order; yields each when it ended."""


@dataclass
class _Worker(Generic[J]):
    process: BaseProcess
    connection: Connection
    ready: bool = False
    job: J | None = None
    began: float = 0.0


@dataclass(frozen=True)
class Crew(Generic[J]):
    """What the workers do, and how many they are.

    Attributes:
        work: what is done with a job, a function that another process can import.
        log: the file for what a job prints.
        workers: how many processes.
        threads: of torch in each; None: the cores, shared evenly.
    """

    work: Callable[[J], None]
    log: Callable[[J], Path]
    workers: int = 1
    threads: int | None = None

    def run(self, jobs: Sequence[J]) -> Iterator[Outcome[J]]:
        """Do all jobs, begun in their order; yields each when it ended.

        Stops the workers, whose jobs are left as they are, when the caller stops asking.

        Raises:
            BackendError: a worker cannot even start.
        """
        waiting = deque(jobs)
        crew = [self._start(place) for place in range(min(self.workers, len(jobs)))]
        try:
            left = len(jobs)
            while left:
                for place, worker in enumerate(crew):
                    if worker.connection.closed and waiting:  # it died, and what became of its job is known
                        crew[place] = self._start(place)
                    elif worker.ready and worker.job is None and waiting:
                        _give(worker, waiting.popleft())
                for outcome in _listen(crew):
                    left -= 1
                    yield outcome
        finally:
            _stop(crew)

    def _start(self, place: int) -> _Worker[J]:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        threads = max(1, _cores() // self.workers) if self.threads is None else self.threads
        process = context.Process(
            target=_serve, args=(there, self.work, self.log, threads, place), daemon=False
        )
        process.start()
        there.close()
        return _Worker(process, here)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _give(worker: _Worker[J], job: J) -> None:
    worker.job, worker.began = job, time.perf_counter()
    with contextlib.suppress(BrokenPipeError):  # it died meanwhile: `_listen` finds out
        worker.connection.send(job)


def _listen(crew: Sequence[_Worker[J]]) -> list[Outcome[J]]:
    """Wait until a worker says something or dies; give the jobs that ended."""
    outcomes = []
    heard = wait([worker.connection for worker in crew if not worker.connection.closed])
    for worker in crew:
        if worker.connection not in heard:
            continue
        try:
            error = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join()
            worker.connection.close()
            error = f"its process ended with exit code {worker.process.exitcode}"
            if not worker.ready:
                hint = "the lines above say why."
                must = "the processes that train must start"
                raise BackendError(message("paper run", must, error, hint=hint)) from None
        if not worker.ready:
            worker.ready = True
        elif worker.job is not None:
            outcomes.append(Outcome(worker.job, error, time.perf_counter() - worker.began))
            worker.job = None
    return outcomes


def _stop(crew: Sequence[_Worker[Any]]) -> None:
    """Let idle workers go, interrupt the others, and wait; a worker that does not listen is killed."""
    for worker in crew:
        worker.connection.close()
        if worker.job is not None and worker.process.is_alive() and worker.process.pid is not None:
            os.kill(worker.process.pid, signal.SIGINT)
    deadline = time.monotonic() + STOP_SECONDS
    for worker in crew:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def _serve(
    connection: Connection, work: Callable[[Any], None], log: Callable[[Any], Path], threads: int, place: int
) -> None:
    """Be a worker."""
    os.setpgrp()  # Ctrl-C is meant for the one who runs the workers
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else deaf to it, where he was begun with `&`
    threading.Thread(target=_follow_parent, daemon=True).start()
    _claim_device(threads, place)
    with contextlib.suppress(KeyboardInterrupt, EOFError, BrokenPipeError):
        connection.send(None)
        while True:
            job = connection.recv()
            with printing_into(log(job)):
                error = attempt(work, job)
            connection.send(error)


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGINT)


def _claim_device(threads: int, place: int) -> None:
    import torch

    torch.set_num_threads(threads)
    if torch.cuda.device_count() > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(place % torch.cuda.device_count())


def attempt(work: Callable[[Any], None], job: Any) -> str | None:
    """Do a job; return what it raised, None if all went well."""
    try:
        work(job)
    except LookaroundError as error:
        print(error)
        return str(error)
    except Exception as error:  # noqa: BLE001 - whatever one run met, the others go on
        traceback.print_exc()
        return "".join([f"{type(error).__name__}: {error}\n\n", *traceback.format_exception(error)])
    return None


@contextlib.contextmanager
def printing_into(path: Path) -> Iterator[None]:
    """Send what this process prints, compiled code included, to the end of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    with path.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, saved in zip((1, 2), kept, strict=True):
            os.dup2(saved, number)
            os.close(saved)
