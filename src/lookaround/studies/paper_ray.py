"""Trainings spread over the machines of a Ray cluster, each with CPUs and GPUs of its own.

Plain remote tasks do it, without Ray Tune. The trainings are a fixed list, each is a run folder that goes on
by itself where it stopped, and what it measured is read from there. Tune's searching, its stopping of trials
and its own folders of results and checkpoints would have no use; losing a worker is met by a task's retries.

Run folders and data must lie on a disk that all machines share, at the same path.
"""

import logging
import os
import re
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from lookaround.errors import ArgumentError, BackendError, message
from lookaround.studies.paper_workers import Outcome, attempt, printing_into

J = TypeVar("J")
RETRIES = 3  # of a training whose worker was lost
CONNECT_SECONDS = 10.0
STOP_SECONDS = 60.0  # that the trainings have to stop by themselves
WHERE = "paper run"


@dataclass(frozen=True)
class RayCrew(Generic[J]):
    """What is done with each job, and what a cluster gives it for that.

    Does what `paper_workers.Crew` does, elsewhere. A job whose worker is lost, be it the process or its
    machine, is begun again on another; one that raises is reported.

    Attributes:
        work: what is done with a job, a function that can be pickled.
        log: the file for what a job prints.
        cpus: of each job; also the threads of torch.
        gpus: of each job; 0.5 lets two share one.
        at_once: how many jobs there are at a time at most; None: as many as fit.
        retries: how often a job is begun again when its worker was lost.
        say: what to do with a line for the user.

    Raises:
        ArgumentError: a number is out of its range.
    """

    work: Callable[[J], None]
    log: Callable[[J], Path]
    cpus: float = 1.0
    gpus: float = 0.0
    at_once: int | None = None
    retries: int = RETRIES
    say: Callable[[str], None] = print

    def __post_init__(self) -> None:
        if not self.cpus > 0:
            raise ArgumentError(message(WHERE, "--cpus-per-run must be more than 0", self.cpus))
        if not self.gpus >= 0:
            raise ArgumentError(message(WHERE, "--gpus-per-run must be at least 0", self.gpus))
        if self.at_once is not None and self.at_once < 1:
            raise ArgumentError(message(WHERE, "--workers must be at least 1", self.at_once))
        for needed in (self.cpus, self.gpus):
            if needed > 1 and needed != int(needed):  # a rule of Ray's
                must = "--cpus-per-run and --gpus-per-run must be whole numbers above 1"
                raise ArgumentError(message(WHERE, must, needed))

    @property
    def workers(self) -> int:
        """How many jobs fit on the cluster at a time; at least one, for machines may come yet."""
        fitting = sum(_fits(node, {"CPU": self.cpus, "GPU": self.gpus}) for node in _machines())
        return max(1, fitting if self.at_once is None else min(fitting, self.at_once))

    def run(self, jobs: Sequence[J]) -> Iterator[Outcome[J]]:
        """Do all jobs, begun in their order; yields each when it ended.

        Stops those on their way, which are left as they are, when the caller stops asking.
        """
        shortage = self.shortage()
        if shortage is not None:
            self.say(shortage)
        waiting, running = deque(jobs), dict[Any, J]()
        try:
            while waiting or running:
                while waiting and (self.at_once is None or len(running) < self.at_once):
                    job = waiting.popleft()
                    running[self._begin(job)] = job
                (ended,), _ = ray.wait(list(running), num_returns=1)
                yield self._outcome(running.pop(ended), ended)
        finally:
            _stop(list(running))

    def shortage(self) -> str | None:
        """Say what is missing if no machine is large enough for a job; None if one is."""
        needed = {"CPU": self.cpus, "GPU": self.gpus}
        machines = _machines()
        if any(_fits(machine, needed) for machine in machines):
            return None
        there = "; ".join(f"{one.get('CPU', 0):g} CPUs, {one.get('GPU', 0):g} GPUs" for one in machines)
        return (
            f"no machine has {self.cpus:g} CPUs and {self.gpus:g} GPUs for a training (there are: {there}); "
            "waiting for one. Fewer can be asked for: --cpus-per-run, --gpus-per-run."
        )

    def _begin(self, job: J) -> Any:
        task = ray.remote(_serve).options(
            num_cpus=self.cpus, num_gpus=self.gpus, max_retries=self.retries, name=str(self.log(job).parent)
        )
        return task.remote(self.work, job, self.log(job), max(1, int(self.cpus)), Path.cwd())

    def _outcome(self, job: J, ended: Any) -> Outcome[J]:
        try:
            error, seconds = ray.get(ended)
        except RayTaskError as failed:  # as where a machine has not what this one has
            cause = f"{type(failed.cause).__name__}: {failed.cause}"
            return Outcome(job, f"its worker could not begin: {cause}\n\n{_plain(str(failed))}", 0.0)
        except RayError as lost:
            reason = next(iter(str(lost).splitlines()), type(lost).__name__)
            return Outcome(job, f"its worker was lost, {self.retries + 1} times: {reason}", 0.0)
        if error is None and not self.log(job).is_file():
            must = "run folders must lie on a disk that all machines of the cluster share"
            error = message(WHERE, must, f"no {self.log(job)} here", hint="give such a folder as --out.")
        return Outcome(job, error, seconds)


def _serve(
    work: Callable[[Any], None], job: Any, log: Path, threads: int, folder: Path
) -> tuple[str | None, float]:
    """Do a job on some machine; return what it raised, and how long it took."""
    import torch

    began = time.perf_counter()
    if not folder.is_dir():
        must = "the folder in which the command runs must be on every machine of the cluster"
        return message(WHERE, must, f"no {folder} on {os.uname().nodename}"), 0.0
    os.chdir(folder)  # relative paths mean the same everywhere
    torch.set_num_threads(threads)
    with printing_into(log):
        error = attempt(work, job)
    return error, time.perf_counter() - began


def _machines() -> list[dict[str, float]]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


def _fits(machine: dict[str, float], needed: dict[str, float]) -> int:
    """Say how many jobs fit on a machine.

    Example:
        >>> _fits({"CPU": 8.0, "GPU": 2.0}, {"CPU": 1.0, "GPU": 0.5})
        4
    """
    return int(min(machine.get(name, 0) // number for name, number in needed.items() if number > 0))


def _plain(text: str) -> str:
    """Take the colours out of a text.

    Example:
        >>> _plain(chr(27) + "[36mray" + chr(27) + "[39m")
        'ray'
    """
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _stop(running: Sequence[Any]) -> None:
    """Interrupt what is on its way, and wait; what does not listen is killed."""
    if not running:
        return
    for task in running:
        ray.cancel(task)
    _, deaf = ray.wait(list(running), num_returns=len(running), timeout=STOP_SECONDS)
    for task in deaf:
        ray.cancel(task, force=True)


def _check_reachable(address: str | None) -> None:
    """Raise OSError if nobody answers there; Ray itself would try for minutes."""
    if address is None:
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()


@contextmanager
def ray_cluster(address: str | None = None) -> Iterator[None]:
    """Connect to a Ray cluster for a while; a connection that there is already is used, and kept.

    Args:
        address: HOST:PORT, "auto" for the cluster that this machine is of, or ray://HOST:PORT; None: start
            Ray on this machine alone, and stop it at the end.

    Raises:
        BackendError: there is no such cluster, or Ray cannot be started.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    # An existing cluster has its dashboard or not, whatever is asked for here.
    options: dict[str, Any] = {"include_dashboard": False} if address is None else {}
    options |= {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        _check_reachable(address)
        ray.init("local" if address is None else address, **options)
    except (OSError, RuntimeError, ValueError) as error:
        got = "none" if address is None else repr(address)
        must = "--address must be that of a Ray cluster, or left out"
        hint = "start one: `ray start --head`, then `--address auto` on the same machine."
        raise BackendError(message(WHERE, must, got, lines=[f"reason: {error!s:.200}"], hint=hint)) from error
    try:
        yield
    finally:
        ray.shutdown()
