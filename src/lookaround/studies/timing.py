"""Timing contestants side by side: A B C A B C …, so that whatever slows the machine slows all of them."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Work = Callable[[], object]
MOST_CALLS = 1000
CACHE_BYTES = 256 * 2**20  # more than any processor's last cache


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, over all samples.

    Attributes:
        samples: seconds of a call in each sample, in the order in which they were taken.
        calls: how many calls one sample is the mean of.
    """

    samples: tuple[float, ...]
    calls: int

    @property
    def median_seconds(self) -> float:
        """The middle of the samples."""
        return statistics.median(self.samples)

    @property
    def quartiles_seconds(self) -> tuple[float, float]:
        """The bounds of the middle half of the samples."""
        if len(self.samples) < 2:
            return self.samples[0], self.samples[0]
        lower, _, upper = statistics.quantiles(self.samples, n=4, method="inclusive")
        return lower, upper

    def summary(self) -> dict[str, object]:
        """Median, spread and every sample, as JSON holds them."""
        lower, upper = self.quartiles_seconds
        return {
            "median_seconds": self.median_seconds,
            "minimum_seconds": min(self.samples),
            "maximum_seconds": max(self.samples),
            "lower_quartile_seconds": lower,
            "upper_quartile_seconds": upper,
            "repeats": len(self.samples),
            "calls_per_sample": self.calls,
            "samples_seconds": list(self.samples),
        }


class HostClock:
    """Measures by the processor's clock."""

    def __init__(self, sample_seconds: float) -> None:
        self.sample_seconds = sample_seconds

    def seconds(self, work: Work, calls: int) -> float:
        """Seconds of one call, the mean of `calls` in a row."""
        start = time.perf_counter()
        for _ in range(calls):
            work()
        return (time.perf_counter() - start) / calls

    def calls(self, work: Work) -> int:
        """How many calls make a sample long enough for this clock; warms up on the way."""
        work()
        return max(1, min(MOST_CALLS, math.ceil(self.sample_seconds / max(self.seconds(work, 1), 1e-7))))


class DeviceClock:
    """Measures by events on a CUDA device, with cold caches: each sample is one call."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.flush = torch.empty(CACHE_BYTES, dtype=torch.int8, device=device)

    def seconds(self, work: Work, calls: int) -> float:
        """Seconds of one call on the device, inputs not in its cache."""
        total = 0.0
        for _ in range(calls):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            # Long enough that the host is ahead of the device when the first event is met.
            self.flush.zero_()
            start.record()
            work()
            end.record()
            torch.cuda.synchronize(self.device)
            total += start.elapsed_time(end) / 1e3
        return total / calls

    def calls(self, work: Work) -> int:
        """One; warms up on the way."""
        for _ in range(3):
            work()
        torch.cuda.synchronize(self.device)
        return 1


def time_interleaved(
    work: Mapping[str, Work],
    clock: HostClock | DeviceClock,
    repeats: int,
    tick: Callable[[str], None],
) -> dict[str, Timing]:
    """Time every contestant `repeats` times, taking turns.

    Args:
        work: the contestants by name; each call does the whole of the work once.
        clock: what measures.
        repeats: samples of each.
        tick: called with the name before each of the `(repeats + 1) * len(work)` steps, warm-up first.
    """
    calls = {}
    for name, call in work.items():
        tick(name)
        calls[name] = clock.calls(call)
    samples: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, call in work.items():
            tick(name)
            samples[name].append(clock.seconds(call, calls[name]))
    return {name: Timing(tuple(taken), calls[name]) for name, taken in samples.items()}
