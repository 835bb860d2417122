"""One piece of work in a process of its own, for the sake of its resident memory.

    python -m lookaround.studies.bench_memory_process '{"kind": "operator", "name": "cpu", ...}'

Prints the peak in bytes, or null where the system does not tell.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from lookaround.errors import BackendError, message
from lookaround.studies import detectors, networks
from lookaround.studies.bench_context import DTYPES, Bench, Settings
from lookaround.studies.bench_shapes import Shape, make_problem
from lookaround.studies.peak_memory import resident_peak_bytes


@dataclass(frozen=True)
class Job:
    """What to do, as plain values.

    Attributes:
        kind: "operator" (forward and backward of a backend), "network" or "detector" (a training step).
        name: of the backend, network or detector.
        batch: images.
        size: pixels a side.
        dtype: a name of `DTYPES`.
        threads: of torch.
        channels: of the operator.
        kernel_size: of the operator.
        device: where; the processor for resident memory.
    """

    kind: str
    name: str
    batch: int
    size: int
    dtype: str
    threads: int
    channels: int = 0
    kernel_size: int = 0
    device: str = "cpu"


def make_work(job: Job, *, tiny: bool = False) -> Callable[[], object]:
    """The work of a job; a tiny one loads the code and warms up without taking much memory."""
    batch, size = (2, job.kernel_size or 64) if tiny else (job.batch, job.size)
    device, dtype = torch.device(job.device), DTYPES[job.dtype]
    if job.kind == "operator":
        bench = Bench(Settings(device=job.device, dtype=job.dtype, quick=True))
        problem = make_problem(bench, Shape(job.channels, size, job.kernel_size), batch)
        return problem.training_work(lambda: problem.run(job.name))
    if job.kind == "detector":
        detector = detectors.make_detector(job.name, size).to(device=device, dtype=dtype)
        return detectors.training_step(detector, detectors.make_images(batch, size, device, dtype))
    images = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.zeros(batch, dtype=torch.int64, device=device)
    model = networks.make_network(job.name).to(device=device, dtype=dtype)
    return networks.training_step(model, images.to(device=device, dtype=dtype), labels)


def resident_peak_of(job: Job) -> int | None:
    """Run a job in a fresh process and return the peak of its resident memory.

    Raises:
        BackendError: the process failed.
    """
    command = [sys.executable, "-m", "lookaround.studies.bench_memory_process", json.dumps(asdict(job))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [f"exit code {done.returncode}", *done.stderr.strip().splitlines()]
        said = next((line for line in reversed(lines) if "Error" in line), lines[-1])
        raise BackendError(message("bench", f"{job.kind} {job.name} must run in a process of its own", said))
    peak: int | None = json.loads(done.stdout.splitlines()[-1])
    return peak


def main() -> None:
    """Do the job that the command line describes."""
    job = Job(**json.loads(sys.argv[1]))
    torch.set_num_threads(job.threads)
    torch.manual_seed(0)
    # The code of operators and libraries is loaded by a tiny piece of the same work.
    make_work(job, tiny=True)()
    print(json.dumps(resident_peak_bytes(make_work(job))))


if __name__ == "__main__":
    main()
