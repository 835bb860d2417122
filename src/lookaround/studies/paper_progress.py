"""How far a long job is: done, failed, and the time that is left by what the finished part took."""

import time
from collections.abc import Callable, Mapping

MINUTE, HOUR, DAY = 60, 3600, 86400


class Progress:
    """Counts runs of unequal size.

    Args:
        sizes: how much work each run is, in any unit.
        done: runs that need no work any more.
        workers: how many run at a time.
        clock: seconds, as by `time.monotonic`.
    """

    def __init__(
        self,
        sizes: Mapping[str, float],
        done: int,
        workers: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.done, self.failed = done + len(sizes), done, 0
        self._sizes = dict(sizes)
        self._all = sum(sizes.values())
        self._workers, self._clock, self._began = workers, clock, clock()
        self._worked = self._seconds = 0.0

    def end(self, name: str, seconds: float, failed: bool) -> None:
        """Count a run that ended."""
        size = self._sizes.pop(name)
        if failed:
            self.failed += 1
            return
        self.done += 1
        self._worked += size
        self._seconds += seconds

    def seconds_left(self) -> float | None:
        """Estimate when the last run ends; None before the first has."""
        if self._worked == 0:
            return None
        begun = (self._clock() - self._began) * self._workers - self._seconds  # of runs that are on their way
        left = sum(self._sizes.values()) * self._seconds / self._worked - max(0.0, begun)
        return max(0.0, left) / self._workers

    def line(self) -> str:
        """Say it in a few words."""
        failed = f", {self.failed} failed" if self.failed else ""
        seconds = self.seconds_left()
        left = "" if seconds is None or not self._sizes else f", about {duration(seconds)} left"
        return f"[{self.done + self.failed}/{self.total}{failed}{left}]"


def duration(seconds: float) -> str:
    """Write a duration for people.

    Example:
        >>> duration(42.0), duration(600.0), duration(7500.0), duration(2e5)
        ('42 s', '10 min', '2 h 5 min', '2 d 8 h')
    """
    if seconds < 2 * MINUTE:
        return f"{seconds:.0f} s"
    if seconds < HOUR:
        return f"{seconds / MINUTE:.0f} min"
    if seconds < 2 * DAY:
        minutes = round(seconds / MINUTE)
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / HOUR)
    return f"{hours // 24} d {hours % 24} h"
