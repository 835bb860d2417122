"""How much memory a piece of work holds at its worst moment, by two meters and on two kinds of device."""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
FORGET_PEAK = "5"


def tensor_peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """Give the peak of what torch's allocator holds for the work, on top of what was there before.

    Allocations inside of operators and of the backward pass count; those that a library makes by itself
    (workspaces of the native kernel and of oneDNN on the processor) do not.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as record:
        result = work()
    del result
    recorded = record.profiler
    assert recorded is not None
    assert recorded.kineto_results is not None
    events = [event for event in recorded.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def resident_peak_bytes(work: Callable[[], object]) -> int | None:
    """Give the peak of this process's resident memory during the work, on top of what it had before.

    Everything counts, whoever allocated it. Memory that the process had freed and kept would be taken again
    without being seen, so the process should be fresh. None where the system does not tell.
    """
    before = _status_bytes("VmRSS")
    if before is None or not _forget_peak():
        return None
    result = work()
    peak = _status_bytes("VmHWM")
    del result
    return None if peak is None else max(0, peak - before)


def share_of(value: int | None, by: int | None) -> float | None:
    """Return a quotient of figures that may not be known, or may be nothing.

    Example:
        >>> share_of(3, 2), share_of(None, 2), share_of(3, 0)
        (1.5, None, None)
    """
    return None if value is None or not by else value / by


def _forget_peak() -> bool:
    try:
        CLEAR.write_text(FORGET_PEAK)
    except OSError:  # no such file, or not allowed in this container
        return False
    return True


def _status_bytes(name: str) -> int | None:
    if not sys.platform.startswith("linux") or not STATUS.is_file():
        return None
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None
