"""Suite `detection`: the detectors of the paper's Table 2 against torchvision's RetinaNet."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from lookaround.errors import ArgumentError, message
from lookaround.models.retinanet import SIZE_DIVISIBLE
from lookaround.studies import detectors
from lookaround.studies.agreement import check_agreement
from lookaround.studies.bench_context import DTYPES, Bench, Race
from lookaround.studies.bench_memory_process import Job, make_work, resident_peak_of
from lookaround.studies.bench_tables import Panel, Row, Table
from lookaround.studies.peak_memory import share_of, tensor_peak_bytes

BATCH_SIZE, IMAGE_SIZE, QUICK_IMAGE_SIZE = 1, 640, 64
MEBIBYTE = 2**20
FORM_COLUMNS = {"heads": "", "backbone": ""}
SPEED_COLUMNS = FORM_COLUMNS | {
    "speed / torchvision": ".2f",
    "speed / convolution throughout": ".2f",
    "images/s": ".2f",
    "ms/image": ".1f",
    "GFLOP/s": ".1f",
    "GFLOP/s / matrix product": ".0%",
}
TRAINING_COLUMNS = FORM_COLUMNS | {
    "time / torchvision": ".3f",
    "tensors / torchvision": ".3f",
    "resident / torchvision": ".3f",
    "ms/image": ".1f",
    "tensors MiB": ".1f",
    "resident MiB": ".1f",
}
COST_COLUMNS = FORM_COLUMNS | {"parameters": ",", "GFLOPs (executed)": ".1f"}
SPEED_REMARK = (
    "From images to boxes. Batch norms of the backbones are folded into convolutions and attention, in all "
    "of them. Weights are random: no score passes the threshold, so that suppressing boxes takes no time."
)
TRAINING_REMARK = (
    "Forward and backward pass and a step of SGD, {objects} objects an image. Memory: peaks on top of what "
    "was there before. Tensors: of torch's allocator. Resident: of a fresh process, workspaces of libraries "
    "included; a dash where the system does not tell."
)
COST_REMARK = (
    "Of one image and of the layers alone. torchvision's detector predicts for 9 anchors a place, the forms "
    "of Table 2 for 6: convolution throughout is the one that differs from the others in nothing but "
    "attention. Attention in the heads leaves the pyramid to convolutions, as the printed figures have it."
)


@dataclass(frozen=True)
class Field:
    """Who takes part, and on what.

    Attributes:
        names: of the detectors, torchvision's first, then convolution throughout.
        size: pixels a side.
        batch: images.
        dtype: a name of `DTYPES`.
        flops: of one image, by name, as the layers execute them.
    """

    names: list[str]
    size: int
    batch: int
    dtype: str
    flops: dict[str, int]

    def __str__(self) -> str:
        return f"{self.dtype}; {self.size}x{self.size} pixels, batch {self.batch}, channels-last"


def run(bench: Bench) -> tuple[list[Table], list[Panel]]:
    """Measure; returns the tables and what to draw.

    Raises:
        ArgumentError: the image size is not a multiple of 32, to which detectors would pad it.
    """
    field = _field(bench)
    speed, training = _inference(bench, field), _training(bench, field)
    return [speed, training, _costs(field)], [_speed_panel(speed, training), _memory_panel(training)]


def _field(bench: Bench) -> Field:
    size = bench.image_size(IMAGE_SIZE, QUICK_IMAGE_SIZE)
    if size % SIZE_DIVISIBLE != 0:
        must = f"--image-size of detection must be a multiple of {SIZE_DIVISIBLE}"
        raise ArgumentError(message("bench", must, size))
    names = detectors.detector_names(quick=bench.settings.quick)
    flops = {name: detectors.executed_flops(name, size) for name in names}
    dtype = next(name for name, value in DTYPES.items() if value == bench.dtype)
    return Field(names, size, bench.batch_size(BATCH_SIZE), dtype, flops)


def _inference(bench: Bench, field: Field) -> Table:
    images = detectors.make_images(field.batch, field.size, bench.device, bench.dtype)
    work: dict[str, Callable[[], object]] = {}
    for name in field.names:
        model = _folded(name, field.size).to(device=bench.device, dtype=bench.dtype)
        work[name] = detectors.detect(model, images)
    flops = {name: count * field.batch for name, count in field.flops.items()}
    race = bench.measure(f"inference, {field.dtype}", work, flops)
    table = Table(f"Images a second, inference, {field}", SPEED_COLUMNS, remark=SPEED_REMARK)
    table.rows.extend(_speed_row(race, field, name) for name in field.names)
    return table


def _folded(name: str, size: int) -> nn.Module:
    """Make a detector for inference, after a check that folding has not changed what it computes.

    That is done in float32, where rounding cannot be taken for an error.
    """
    eager = detectors.settle(detectors.make_detector(name, size))
    folded = detectors.fold(eager)
    images = torch.randn(1, 3, detectors.SETTLE_SIZE, detectors.SETTLE_SIZE)
    actual, expected = (detectors.pyramid_maps(model, images) for model in (folded, eager))
    check_agreement(f"{name}, folded", actual, expected)
    return folded


def _speed_row(race: Race, field: Field, name: str) -> Row:
    seconds = race.seconds(name)
    return _parts(name) | {
        "speed / torchvision": race.ratio(field.names[0], name),
        "speed / convolution throughout": race.ratio(field.names[1], name),
        "images/s": field.batch / seconds,
        "ms/image": seconds * 1e3 / field.batch,
        "GFLOP/s": race.rate(name) / 1e9,
        "GFLOP/s / matrix product": race.share(name),
    }


def _training(bench: Bench, field: Field) -> Table:
    """Measure memory first, every detector alone, then time, all side by side."""
    threads, device = torch.get_num_threads(), bench.settings.device
    job = Job("detector", "", field.batch, field.size, field.dtype, threads, device=device)
    jobs = {name: replace(job, name=name) for name in field.names}
    peaks = _peaks(bench, jobs)
    race = bench.measure(
        f"training step, {field.dtype}", {name: make_work(job) for name, job in jobs.items()}
    )
    remark = TRAINING_REMARK.format(objects=detectors.OBJECTS)
    table = Table(f"Time and memory, training step, {field}", TRAINING_COLUMNS, remark=remark)
    first = field.names[0]
    for name, (tensors, resident) in peaks.items():
        row: Row = {
            "time / torchvision": race.ratio(name, first),
            "tensors / torchvision": share_of(tensors, peaks[first][0]),
            "resident / torchvision": share_of(resident, peaks[first][1]),
            "ms/image": race.seconds(name) * 1e3 / field.batch,
            "tensors MiB": share_of(tensors, MEBIBYTE),
            "resident MiB": share_of(resident, MEBIBYTE),
        }
        table.rows.append(_parts(name) | row)
    return table


def _peaks(bench: Bench, jobs: dict[str, Job]) -> dict[str, tuple[int, int | None]]:
    # A process costs seconds to start, which the quick form does not have.
    fresh = bench.device.type == "cpu" and not bench.settings.quick
    peaks: dict[str, tuple[int, int | None]] = {}
    for name, job in jobs.items():
        bench.tick("memory, training step", name, len(jobs))
        held = tensor_peak_bytes(make_work(job), bench.device)
        peaks[name] = (held, resident_peak_of(job) if fresh else None)
    return peaks


def _costs(field: Field) -> Table:
    table = Table("Costs of one image", COST_COLUMNS, remark=COST_REMARK)
    for name in field.names:
        row: Row = {
            "parameters": detectors.count_parameters(name, field.size),
            "GFLOPs (executed)": field.flops[name] / 1e9,
        }
        table.rows.append(_parts(name) | row)
    return table


def _parts(name: str) -> Row:
    """What a detector is made of, as two cells."""
    if name not in detectors.FORMS:
        library, _, rest = name.partition(" ")
        return {"heads": library, "backbone": rest}
    form = detectors.FORMS[name]
    return {"heads": form.heads, "backbone": form.backbone}


def _label(row: Row) -> str:
    """What a detector is called in a chart, over some short lines."""
    backbone = str(row["backbone"]).replace(" + ", "\n+ ")
    return f"{row['heads']}\nheads,\n{backbone}"


def _speed_panel(speed: Table, training: Table) -> Panel:
    series = {
        "inference": {_label(row): float(row["speed / torchvision"] or 0.0) for row in speed.rows[1:]},
        "training step": {
            _label(row): 1 / float(row["time / torchvision"] or 1.0) for row in training.rows[1:]
        },
    }
    return Panel("Detectors", "images a second / torchvision", series, {"torchvision": 1.0})


def _memory_panel(training: Table) -> Panel:
    series: dict[str, dict[str, float]] = {}
    for row in training.rows[1:]:
        for meter in ("tensors", "resident"):
            share = row[f"{meter} / torchvision"]
            if share is not None:
                series.setdefault(meter, {})[_label(row)] = float(share)
    return Panel("Training step", "peak memory / torchvision", series, {"torchvision": 1.0})
