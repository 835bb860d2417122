"""What every suite of the benchmark is given: the settings, a clock, and a book of what was measured."""

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from lookaround.errors import ArgumentError, UnsupportedCallError, message
from lookaround.studies.machine import matrix_product
from lookaround.studies.timing import DeviceClock, HostClock, Timing, Work, time_interleaved

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SAMPLE_SECONDS = 0.05
REPEATS = {"cpu": 7, "cuda": 50}
QUICK_REPEATS = 2
MATRIX_PRODUCT = "matrix product"


@dataclass(frozen=True)
class Settings:
    """What the user chose.

    Attributes:
        device: "cpu" or a CUDA device.
        dtype: a name of `DTYPES`; None: those that the suite is about.
        threads: of torch; None: as it is.
        repeats: samples of each contestant; None: as many as the device needs.
        batch_size: images; None: the suite's own.
        image_size: pixels a side of the images of whole networks; None: the suite's own.
        quick: tiny sizes, to see that everything runs. The figures mean nothing.
        compile: also measure the networks under torch.compile (minutes more).
    """

    device: str = "cpu"
    dtype: str | None = None
    threads: int | None = None
    repeats: int | None = None
    batch_size: int | None = None
    image_size: int | None = None
    quick: bool = False
    compile: bool = False

    def check(self) -> None:
        """Refuse settings with which nothing could be measured.

        Raises:
            ArgumentError: a number is not positive, or the dtype or device is not known.
            UnsupportedCallError: this machine has no such device.
        """
        for name in ("threads", "repeats", "batch_size", "image_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                option = name.replace("_", "-")
                raise ArgumentError(message("bench", f"--{option} must be at least 1", value))
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ArgumentError(message("bench", f"--dtype must be one of {', '.join(DTYPES)}", self.dtype))
        try:
            kind = torch.device(self.device).type
        except RuntimeError:
            kind = ""
        if kind not in REPEATS:
            raise ArgumentError(message("bench", "--device must be cpu, cuda or cuda:N", repr(self.device)))
        if kind == "cuda" and not torch.cuda.is_available():
            hint = "leave --device out to measure on the processor."
            raise UnsupportedCallError(
                message(
                    "bench", "torch must see the device", f"{self.device!r}, and none is there", hint=hint
                )
            )


@dataclass(frozen=True)
class Race:
    """Contestants that were timed side by side.

    Attributes:
        timings: of each, by name.
        flops: executed FLOPs of one call, where known; always for the matrix product.
    """

    timings: Mapping[str, Timing]
    flops: Mapping[str, int]

    def seconds(self, name: str) -> float:
        """The median time of one call."""
        return self.timings[name].median_seconds

    def ratio(self, name: str, other: str) -> float:
        """How many times as long as another one takes."""
        return self.seconds(name) / self.seconds(other)

    def rate(self, name: str) -> float:
        """FLOPs a second."""
        return self.flops[name] / self.seconds(name)

    def share(self, name: str) -> float:
        """Rate over the machine's own, in the same run."""
        return self.rate(name) / self.rate(MATRIX_PRODUCT)


@dataclass
class Bench:
    """Measures for a suite and keeps every figure.

    Attributes:
        settings: what the user chose, checked.
        tick: told the group, the contestant and how many steps the group has, before each step.
        measurements: a row for every contestant that was timed.
        notes: what was left out, and why.
    """

    settings: Settings
    tick: Callable[[str, str, int], None] = lambda group, name, steps: None
    measurements: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.device = torch.device(self.settings.device)
        on_cuda = self.device.type == "cuda"
        sample_seconds = 0.0 if self.settings.quick else SAMPLE_SECONDS
        self.clock = DeviceClock(self.device) if on_cuda else HostClock(sample_seconds)
        usual = QUICK_REPEATS if self.settings.quick else REPEATS[self.device.type]
        self.repeats = usual if self.settings.repeats is None else self.settings.repeats
        self._products: dict[torch.dtype, tuple[Work, int]] = {}

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of suites that measure one; float32 unless chosen."""
        return DTYPES["float32" if self.settings.dtype is None else self.settings.dtype]

    @property
    def promised(self) -> bool:
        """Whether the project's targets are about these settings: float32 on a processor, at full size."""
        return self.device.type == "cpu" and self.dtype == torch.float32 and not self.settings.quick

    def batch_size(self, usual: int) -> int:
        """How many images: what the user chose, or what the suite has."""
        chosen = self.settings.batch_size
        return (2 if self.settings.quick else usual) if chosen is None else chosen

    def image_size(self, usual: int, quick: int) -> int:
        """Pixels a side of an image: what the user chose, or what the suite has."""
        chosen = self.settings.image_size
        return (quick if self.settings.quick else usual) if chosen is None else chosen

    def measure(
        self,
        group: str,
        work: Mapping[str, Work],
        flops: Mapping[str, int] | None = None,
        dtype: torch.dtype | None = None,
    ) -> Race:
        """Time contestants side by side, a matrix product among them, and write down what was found.

        Args:
            group: what they have in common.
            work: the contestants by name.
            flops: executed FLOPs of one call, for those for which they are known.
            dtype: of the matrix product; the run's if not given.
        """
        product, product_flops = self._matrix_product(self.dtype if dtype is None else dtype)
        everyone = {MATRIX_PRODUCT: product, **work}
        counts = {MATRIX_PRODUCT: product_flops, **({} if flops is None else flops)}
        steps = (self.repeats + 1) * len(everyone)
        gc.collect()
        timings = time_interleaved(
            everyone, self.clock, self.repeats, lambda name: self.tick(group, name, steps)
        )
        race = Race(timings, counts)
        for name, timing in timings.items():
            row = {"group": group, "contestant": name, **timing.summary()}
            if name in counts:
                row["flops"] = counts[name]
                row["flops_per_second"] = race.rate(name)
                row["share_of_matrix_product"] = race.share(name)
            self.measurements.append(row)
        return race

    def _matrix_product(self, dtype: torch.dtype) -> tuple[Work, int]:
        if dtype not in self._products:
            side = 64 if self.settings.quick else (8192 if self.device.type == "cuda" else 2048)
            self._products[dtype] = matrix_product(side, self.device, dtype)
        return self._products[dtype]


@contextmanager
def using_threads(threads: int | None) -> Iterator[None]:
    """Let torch use so many threads inside of the block; None changes nothing."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
