"""Suite `network`: attention networks against torchvision's ResNet-50, each at its best."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lookaround.studies import networks
from lookaround.studies.agreement import check_agreement
from lookaround.studies.bench_context import DTYPES, Bench, Race
from lookaround.studies.bench_tables import Panel, Row, Table, verdict

BATCH_SIZE, IMAGE_SIZE = 16, 224
QUICK_IMAGE_SIZE = 32
SETTLE_IMAGES = 8  # give the batch norms their statistics
# Rounding grows through fifty layers: compiled forms in half precision are checked for gross errors alone.
HALF_PRECISION_TOLERANCE = 0.5
LEAST_RATIO = {"sasa_resnet50_convstem": 1.0, "sasa_resnet50": 0.95}
BEST_COLUMNS = {
    "work": "",
    "network": "",
    "speed / torchvision": ".2f",
    "target": "",
    "met": "",
    "best form": "",
    "torchvision's best form": "",
}
COLUMNS = {
    "work": "",
    "network": "",
    "form": "",
    "speed / torchvision's best": ".2f",
    "images/s": ".1f",
    "ms/image": ".2f",
    "GFLOP/s": ".1f",
    "GFLOP/s / matrix product": ".0%",
}


@dataclass(frozen=True)
class Job:
    """What the networks do: inference or a training step, in a dtype."""

    kind: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.kind}, {self.dtype}"


def jobs(bench: Bench) -> list[Job]:
    """Inference and a training step in the chosen dtype; if none was: those that the targets are about."""
    if bench.settings.dtype is not None:
        return [Job("inference", bench.settings.dtype), Job("training step", bench.settings.dtype)]
    return [Job("inference", "float32"), Job("inference", "bfloat16"), Job("training step", "float32")]


def run(bench: Bench) -> tuple[list[Table], list[Panel]]:
    """Measure; returns the tables and what to draw."""
    size = bench.image_size(IMAGE_SIZE, QUICK_IMAGE_SIZE)
    batch = bench.batch_size(BATCH_SIZE)
    about = f"{size}x{size} pixels, batch {batch}, channels-last"
    best = Table(f"Images a second against torchvision, each in its fastest form; {about}", BEST_COLUMNS)
    forms = Table(
        "Every form",
        COLUMNS,
        remark="Folded: batch norms folded into convolutions, for inference. Compiled: torch.compile, of the "
        "folded network with frozen weights for inference. FLOPs as executed by the eager network.",
    )
    images = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
    for job in jobs(bench):
        inference = job.kind == "inference"
        torch.compiler.reset()  # a function is compiled for eight networks at most
        work: Mapping[str, Callable[[], object]] = (
            _inference(bench, job, images) if inference else _training(bench, job, images)
        )
        race = bench.measure(str(job), work, _flops(work, size, batch, inference), DTYPES[job.dtype])
        rows = _rows(job, race, list(work), batch)
        forms.rows.extend(rows)
        best.rows.extend(_best_rows(bench, job, rows))
    return [best, forms], [_panel(best)]


def _inference(bench: Bench, job: Job, images: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Every network in every form that it has, after a check that the forms of a network agree.

    Folding is checked in float32, where rounding cannot be taken for an error.
    """
    dtype = DTYPES[job.dtype]
    placed = images.to(device=bench.device, dtype=dtype)
    work: dict[str, Callable[[], Tensor]] = {}
    for name in networks.network_names(bench):
        forms = _forms(name, images.shape[-1])
        logits = [_infer(model, images[:2])() for model in forms.values()]
        for form, actual in zip(forms, logits, strict=True):
            check_agreement(f"{name}, {form}", [actual], logits[:1])
        for form, model in forms.items():
            work[f"{name}, {form}"] = _infer(model.to(device=bench.device, dtype=dtype), placed)
        if bench.settings.compile:
            compiled = _infer(networks.compile_network(forms["folded"], frozen=True), placed)
            found = _first_call(bench, f"{job}, {name}, compiled", compiled)
            if found is not None:
                loose = None if dtype == torch.float32 else HALF_PRECISION_TOLERANCE
                check_agreement(f"{name}, compiled", [found], [work[f"{name}, folded"]()], loose)
                work[f"{name}, compiled"] = compiled
    return work


def _forms(name: str, size: int) -> dict[str, nn.Module]:
    images = torch.randn(SETTLE_IMAGES, 3, size, size)
    eager = networks.settle(networks.make_network(name), images)
    return {"eager": eager, "folded": networks.fold(eager)}


def _first_call(bench: Bench, name: str, call: Callable[[], Tensor]) -> Tensor | None:
    """Call what may have to be compiled; if it cannot be, note the reason and return None."""
    try:
        return call()
    except torch._dynamo.exc.TorchDynamoException as error:
        bench.notes.append(f"{name}: {type(error).__name__}: {str(error).strip().splitlines()[0]}")
        return None


def _infer(model: nn.Module, images: Tensor) -> Callable[[], Tensor]:
    # Compilation with frozen weights refuses inference mode, so that all run without gradients instead.
    def call() -> Tensor:
        with torch.no_grad():
            logits: Tensor = model(images)
        return logits

    return call


def _training(bench: Bench, job: Job, images: Tensor) -> dict[str, Callable[[], object]]:
    dtype = DTYPES[job.dtype]
    placed = images.to(device=bench.device, dtype=dtype)
    labels = torch.randint(0, 1000, (len(images),), device=bench.device)
    work: dict[str, Callable[[], object]] = {}
    for name in networks.network_names(bench):
        for form in ["eager", *["compiled"] * bench.settings.compile]:
            model = networks.make_network(name).to(device=bench.device, dtype=dtype)
            if form == "compiled":
                model = networks.compile_network(model, frozen=False)
            step = networks.training_step(model, placed, labels)
            if _first_call(bench, f"{job}, {name}, {form}", step) is not None:
                work[f"{name}, {form}"] = step
    return work


def _flops(work: Iterable[str], size: int, batch: int, inference: bool) -> dict[str, int]:
    """FLOPs of a call where they are counted: for inference."""
    counted = {}
    for contestant in work if inference else ():
        flops = networks.executed_flops(contestant.partition(", ")[0], size)
        if flops is not None:
            counted[contestant] = flops * batch
    return counted


def _rows(job: Job, race: Race, contestants: list[str], batch: int) -> list[Row]:
    baseline = contestants[0].partition(", ")[0]
    fastest = min(race.seconds(name) for name in contestants if name.startswith(f"{baseline}, "))
    rows: list[Row] = []
    for contestant in contestants:
        network, _, form = contestant.partition(", ")
        seconds, counted = race.seconds(contestant), contestant in race.flops
        rows.append(
            {
                "work": str(job),
                "network": network,
                "form": form,
                "speed / torchvision's best": fastest / seconds,
                "images/s": batch / seconds,
                "ms/image": seconds * 1e3 / batch,
                "GFLOP/s": race.rate(contestant) / 1e9 if counted else None,
                "GFLOP/s / matrix product": race.share(contestant) if counted else None,
            }
        )
    return rows


def _best_rows(bench: Bench, job: Job, rows: list[Row]) -> list[Row]:
    """The fastest form of each network against the fastest of the baseline."""
    fastest: dict[str, Row] = {}
    for row in rows:
        name = str(row["network"])
        if name not in fastest or _speed(row) > _speed(fastest[name]):
            fastest[name] = row
    baseline, *others = fastest.values()
    promised = bench.device.type == "cpu" and job in (
        Job("inference", "float32"),
        Job("inference", "bfloat16"),
        Job("training step", "float32"),
    )
    return [
        {
            "work": str(job),
            "network": row["network"],
            "speed / torchvision": _speed(row),
            **verdict(_speed(row), at_least=LEAST_RATIO.get(str(row["network"])) if promised else None),
            "best form": row["form"],
            "torchvision's best form": baseline["form"],
        }
        for row in others
    ]


def _speed(row: Row) -> float:
    return float(row["speed / torchvision's best"] or 0.0)


def _panel(best: Table) -> Panel:
    series: dict[str, dict[str, float]] = {}
    for row in best.rows:
        ratio = float(row["speed / torchvision"] or 0.0)
        series.setdefault(str(row["network"]), {})[str(row["work"])] = ratio
    return Panel("Networks", "images a second / torchvision resnet50", series, {"torchvision": 1.0})
