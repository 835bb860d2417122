"""Suite `memory`: what backends and training steps hold at their worst moment, next to their time."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from lookaround.ops.dispatch import list_backends
from lookaround.studies import networks
from lookaround.studies.bench_context import Bench
from lookaround.studies.bench_memory_process import Job, make_work, resident_peak_of
from lookaround.studies.bench_network import BATCH_SIZE as NETWORK_BATCH_SIZE
from lookaround.studies.bench_network import IMAGE_SIZE, QUICK_IMAGE_SIZE
from lookaround.studies.bench_shapes import QUICK_SHAPES, RESNET_SHAPES, check_backends, usable_backends
from lookaround.studies.bench_tables import Panel, Table, verdict
from lookaround.studies.peak_memory import share_of, tensor_peak_bytes

BATCH_SIZE = 8
MEBIBYTE = 2**20
MOST_MEMORY_OF_BLOCKED, MOST_TIME_OF_BLOCKED = 0.2, 0.5
MOST_OF_TORCHVISION = 1.0
REMARK = (
    "Peaks on top of what was there before. Tensors: of torch's allocator. Resident: of a fresh process, "
    "workspaces of libraries included; a dash where the system does not tell."
)
NO_LIMITS: tuple[float | None, float | None] = (None, None)


@dataclass(frozen=True)
class Comparison:
    """Jobs whose memory and time are set against one of them.

    Attributes:
        title: of the table.
        heading: of the column that names the jobs.
        jobs: by name.
        other: the job that the others are compared with.
        limits: most memory and most time, as shares of the other's, for the jobs that have a target.
    """

    title: str
    heading: str
    jobs: dict[str, Job]
    other: str
    limits: Mapping[str, tuple[float | None, float | None]]

    def columns(self) -> dict[str, str]:
        """Headings and how their values are written."""
        return {
            self.heading: "",
            f"tensors / {self.other}": ".3f",
            f"resident / {self.other}": ".3f",
            "memory: target": "",
            "memory: met": "",
            f"time / {self.other}": ".3f",
            "time: target": "",
            "time: met": "",
            "tensors MiB": ".1f",
            "resident MiB": ".1f",
            "ms": ".1f",
        }


def run(bench: Bench) -> tuple[list[Table], list[Panel]]:
    """Measure; returns the tables and what to draw."""
    operator, network = _operator(bench), _networks(bench)
    tables = [_measure(bench, operator), _measure(bench, network)]
    panels = [
        _panel("Operator, forward and backward", operator, tables[0], MOST_MEMORY_OF_BLOCKED),
        _panel("Training step", network, tables[1], MOST_OF_TORCHVISION),
    ]
    return tables, panels


def _operator(bench: Bench) -> Comparison:
    shape = QUICK_SHAPES[0] if bench.settings.quick else RESNET_SHAPES[0]
    usable = usable_backends(bench, shape)
    check_backends(bench, shape, usable)
    job = _job(bench, "operator", bench.batch_size(BATCH_SIZE), shape.size)
    job = replace(job, channels=shape.channels, kernel_size=shape.kernel_size)
    names = [name for name in list_backends() if name in [*usable, "reference"]]
    return Comparison(
        f"Operator, forward and backward: {shape}, window {shape.kernel_size}, batch {job.batch}",
        "backend",
        {name: replace(job, name=name) for name in names},
        "reference",
        {"blocked": (MOST_MEMORY_OF_BLOCKED, MOST_TIME_OF_BLOCKED)} if bench.promised else {},
    )


def _networks(bench: Bench) -> Comparison:
    size = QUICK_IMAGE_SIZE if bench.settings.quick else IMAGE_SIZE
    job = _job(bench, "network", bench.batch_size(NETWORK_BATCH_SIZE), size)
    baseline, *others = networks.network_names(bench)
    return Comparison(
        f"Training step: {size}x{size} pixels, batch {job.batch}, channels-last",
        "network",
        {name: replace(job, name=name) for name in (baseline, *others)},
        baseline,
        dict.fromkeys(others, (MOST_OF_TORCHVISION, None)) if bench.promised else {},
    )


def _job(bench: Bench, kind: str, batch: int, size: int) -> Job:
    dtype = "float32" if bench.settings.dtype is None else bench.settings.dtype
    threads = torch.get_num_threads()
    return Job(kind, "", batch, size, dtype, threads, device=bench.settings.device)


def _measure(bench: Bench, comparison: Comparison) -> Table:
    """Measure memory first, every job alone, then time, all jobs side by side."""
    jobs = comparison.jobs
    peaks: dict[str, tuple[int, int | None]] = {}
    # A process costs seconds to start, which the quick form does not have.
    fresh = bench.device.type == "cpu" and not bench.settings.quick
    for name, job in jobs.items():
        bench.tick(f"memory, {comparison.heading}s", name, len(jobs))
        held = tensor_peak_bytes(make_work(job), bench.device)
        peaks[name] = (held, resident_peak_of(job) if fresh else None)
    race = bench.measure(
        comparison.title.partition(":")[0], {name: make_work(job) for name, job in jobs.items()}
    )
    table = Table(comparison.title, comparison.columns(), remark=REMARK)
    other = comparison.other
    for name in jobs:
        memory = share_of(peaks[name][0], peaks[other][0])
        resident = share_of(peaks[name][1], peaks[other][1])
        most_memory, most_time = comparison.limits.get(name, NO_LIMITS)
        # The stricter of the two meters decides.
        worst = max(share for share in (memory, resident, 0.0) if share is not None)
        of_memory = verdict(worst, at_most=most_memory)
        of_time = verdict(race.ratio(name, other), at_most=most_time)
        table.rows.append(
            {
                comparison.heading: name,
                f"tensors / {other}": memory,
                f"resident / {other}": resident,
                "memory: target": of_memory["target"],
                "memory: met": of_memory["met"],
                f"time / {other}": race.ratio(name, other),
                "time: target": of_time["target"],
                "time: met": of_time["met"],
                "tensors MiB": peaks[name][0] / MEBIBYTE,
                "resident MiB": share_of(peaks[name][1], MEBIBYTE),
                "ms": race.seconds(name) * 1e3,
            }
        )
    return table


def _panel(title: str, comparison: Comparison, table: Table, limit: float) -> Panel:
    series: dict[str, dict[str, float]] = {}
    for row in table.rows:
        for meter in ("tensors", "resident"):
            share = row[f"{meter} / {comparison.other}"]
            if share is not None:
                series.setdefault(meter, {})[str(row[comparison.heading])] = float(share)
    return Panel(title, f"peak memory / {comparison.other}", series, {f"target {limit:g}": limit})
