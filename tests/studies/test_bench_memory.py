"""The meters of peak memory, in this process and in a fresh one."""

import mmap
import sys

import pytest
import torch

from lookaround.errors import BackendError
from lookaround.studies.bench_memory_process import Job, resident_peak_of
from lookaround.studies.peak_memory import resident_peak_bytes, tensor_peak_bytes

MEBIBYTE = 2**20
CPU = torch.device("cpu")


def hold_eight_of_twelve() -> torch.Tensor:
    for _ in range(3):
        first = torch.ones(MEBIBYTE)  # 4 MiB
        first = first + 1  # 4 more, then 4 fewer
    return first


def test_tensor_meter_sees_the_worst_moment_and_not_the_sum() -> None:
    assert 8 * MEBIBYTE <= tensor_peak_bytes(hold_eight_of_twelve, CPU) < 12.1 * MEBIBYTE


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
def test_resident_meter_sees_memory_of_anyone() -> None:
    def work() -> mmap.mmap:  # pages of its own: malloc may give what an earlier test has freed
        memory = mmap.mmap(-1, 64 * MEBIBYTE)
        for start in range(0, len(memory), mmap.PAGESIZE):
            memory[start] = 1
        return memory

    peak = resident_peak_bytes(work)
    if peak is None:
        pytest.skip("this system does not let the peak be forgotten")
    assert 60 * MEBIBYTE <= peak < 80 * MEBIBYTE


@pytest.mark.slow
def test_a_job_runs_in_a_fresh_process() -> None:
    job = Job("operator", "blocked", 2, 24, "float32", 1, channels=64, kernel_size=3)
    peak = resident_peak_of(job)
    gradient_bytes = 2 * 24 * 24 * 64 * 4 * 3
    assert peak is None or peak > gradient_bytes


@pytest.mark.slow
def test_a_job_that_fails_says_why() -> None:
    job = Job("operator", "nonsense", 1, 8, "float32", 1, channels=16, kernel_size=3)
    with pytest.raises(
        BackendError, match=r"operator nonsense must run in a process of its own; got .*backend must be known"
    ):
        resident_peak_of(job)
