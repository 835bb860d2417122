"""Suite `peers`: other ways to compute the same function, and layers that stand in the same place."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from lookaround.nn import LocalAttention2d
from lookaround.ops import local_attention
from lookaround.studies import peers
from lookaround.studies.agreement import check_agreement
from lookaround.studies.bench_context import MATRIX_PRODUCT, Bench, Race
from lookaround.studies.bench_layer import forward_work, training_work
from lookaround.studies.bench_shapes import Shape, make_problem, shapes
from lookaround.studies.bench_tables import Panel, Row, Table, verdict

BATCH_SIZE = 8
MINE = "lookaround"
LEAST_RATIO = {"forward": 5.0, "training": 10.0}
COLUMNS = {
    "shape": "",
    "pass": "",
    "peer": "",
    "peer / lookaround": ".2f",
    "peer ms/image": ".3f",
    "lookaround ms/image": ".3f",
}
FASTEST_COLUMNS = {
    "shape": "",
    "pass": "",
    "fastest peer": "",
    "fastest peer / lookaround": ".2f",
    "target": "",
    "met": "",
}


@dataclass(frozen=True)
class Candidate:
    """A peer that may or may not run here.

    Attributes:
        name: what the tables call it.
        make: gives the function for a shape; it and the function may raise RuntimeError, with the reason.
        trains: whether gradients of all five inputs come out.
    """

    name: str
    make: Callable[[Shape], peers.Peer]
    trains: bool = True


def run(bench: Bench) -> tuple[list[Table], list[Panel]]:
    """Measure; returns the tables and what to draw."""
    batch = bench.batch_size(BATCH_SIZE)
    fastest = Table(f"The fastest peer that computes the same function, batch {batch}", FASTEST_COLUMNS)
    same = Table(
        "Peers that compute the same function",
        COLUMNS,
        remark="Border 'mask', shared relative tables. Outputs and gradients were checked equal first.",
    )
    layers = Table(
        "Layers that stand in the same place and compute something else",
        COLUMNS,
        remark="Whole layers with their projections. HaloAttn looks at the window around a block of pixels.",
    )
    for shape in shapes(bench):
        for kind in ("forward", "training"):
            race = _race_operators(bench, shape, kind, batch)
            rows = _rows(race, shape, kind, batch)
            same.rows.extend(rows)
            fastest.rows.extend(_fastest_rows(bench, rows))
        layers.rows.extend(_race_layers(bench, shape, batch))
    _measure_natten(bench, layers, batch)
    return [fastest, same, layers], [_panel(same, kind) for kind in ("forward", "training")]


def candidates(bench: Bench) -> list[Candidate]:
    """The peers at hand; those that are compiled are left out of the quick form."""

    def unfold(shape: Shape) -> peers.Peer:
        return partial(peers.unfold_attention, kernel_size=shape.kernel_size)

    def shifted(shape: Shape) -> peers.Peer:
        return partial(peers.shifted_attention, kernel_size=shape.kernel_size)

    def compiled(shape: Shape) -> peers.Peer:
        function: peers.Peer = torch.compile(shifted(shape), dynamic=False, fullgraph=True)
        return function

    def flex(shape: Shape) -> peers.Peer:
        return peers.make_flex_attention(shape.kernel_size, shape.size, shape.size, bench.device)

    everyone = [Candidate("unfold", unfold), Candidate("shifted adds", shifted)]
    if bench.settings.quick:
        _note(bench, "shifted adds under torch.compile, FlexAttention: compiled, so not in the quick form")
        return everyone
    return [
        *everyone,
        Candidate("shifted adds, compiled", compiled),
        Candidate("FlexAttention, compiled", flex, trains=bench.device.type == "cuda"),
    ]


def _race_operators(bench: Bench, shape: Shape, kind: str, batch: int) -> Race:
    """Time the operator and every peer that runs here and agrees with it."""
    torch.compiler.reset()  # a function is compiled for eight sizes at most
    problem = make_problem(bench, shape, batch, fused=False)
    as_work = problem.forward_work if kind == "forward" else problem.training_work
    work = {MINE: as_work(lambda: problem.run("auto"))}
    expected = _tensors(work[MINE]())
    for candidate in candidates(bench):
        if kind == "training" and not candidate.trains:
            continue
        try:
            peer = candidate.make(shape)
            call = as_work(partial(peer, problem.inputs))
            found = _tensors(call())
        except (RuntimeError, ValueError, ImportError) as error:
            _note(bench, f"{candidate.name} at {shape}, {kind}: {_first_line(error)}")
            continue
        check_agreement(f"{candidate.name} at {shape}, {kind}", found, expected)
        work[candidate.name] = call
    return bench.measure(f"{shape}, {kind}", work)


def _tensors(result: object) -> list[Tensor]:
    parts: Sequence[object] = [result] if isinstance(result, Tensor) else result  # type: ignore[assignment]
    return [part for part in parts if isinstance(part, Tensor)]


def _note(bench: Bench, note: str) -> None:
    if note not in bench.notes:
        bench.notes.append(note)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'without a message'}"


def _race_layers(bench: Bench, shape: Shape, batch: int) -> list[Row]:
    """Time the whole layer, the 3x3 convolution and timm's HaloAttn, inference and training."""
    channels = shape.channels
    images = torch.randn(batch, channels, shape.size, shape.size, device=bench.device, dtype=bench.dtype)
    images = images.to(memory_format=torch.channels_last).requires_grad_()
    layers: dict[str, nn.Module] = {
        MINE: LocalAttention2d(channels, channels, shape.kernel_size, num_heads=shape.heads),
        "nn.Conv2d 3x3": nn.Conv2d(channels, channels, 3, padding=1, bias=False),
    }
    halo = _make_halo(bench, shape)
    if halo is not None:
        layers["timm HaloAttn"] = halo
    for layer in layers.values():
        layer.to(bench.device, bench.dtype).to(memory_format=torch.channels_last)
    rows = []
    for kind, as_work in (("forward", forward_work), ("training", training_work)):
        race = bench.measure(
            f"layer, {shape}, {kind}", {name: as_work(x, images) for name, x in layers.items()}
        )
        rows.extend(_rows(race, shape, kind, batch))
    return rows


def _make_halo(bench: Bench, shape: Shape) -> nn.Module | None:
    if importlib.util.find_spec("timm") is None:
        _note(bench, "timm HaloAttn: timm is not installed")
        return None
    from timm.layers.halo_attn import HaloAttn

    # The largest block up to 8 pixels that divides the image, and a halo as wide as the window's radius.
    block = max(size for size in range(1, 9) if shape.size % size == 0)
    radius = shape.kernel_size // 2
    halo: nn.Module = HaloAttn(shape.channels, num_heads=shape.heads, block_size=block, halo_size=radius)
    return halo


def _measure_natten(bench: Bench, table: Table, batch: int) -> None:
    """Time NATTEN, which has no tables and shifts its window at the border: equal in the interior alone."""
    if importlib.util.find_spec("natten") is None:
        _note(bench, "NATTEN: natten is not installed")
        return
    for shape in shapes(bench):
        problem = make_problem(bench, shape, batch, fused=False)
        query, key, value = (t for t in problem.inputs[:3] if t is not None)
        mine = partial(local_attention, query, key, value, kernel_size=shape.kernel_size)
        try:
            theirs = _natten(query, key, value, shape)
            found = theirs()
        except (RuntimeError, ValueError, ImportError) as error:
            _note(bench, f"NATTEN at {shape}: {_first_line(error)}")
            continue
        radius = shape.kernel_size // 2
        interior = (slice(None), slice(radius, -radius), slice(radius, -radius))
        check_agreement(f"NATTEN at {shape}, interior", [found[interior]], [mine()[interior]])
        work = {MINE: problem.forward_work(mine), "NATTEN (no tables)": problem.forward_work(theirs)}
        table.rows.extend(_rows(bench.measure(f"NATTEN, {shape}", work), shape, "forward", batch))


def _natten(query: Tensor, key: Tensor, value: Tensor, shape: Shape) -> Callable[[], Tensor]:
    natten = importlib.import_module("natten")

    def call() -> Tensor:
        out: Tensor = natten.na2d(query, key, value, kernel_size=shape.kernel_size, scale=1.0)
        return out

    return call


def _rows(race: Race, shape: Shape, kind: str, batch: int) -> list[Row]:
    return [
        {
            "shape": str(shape),
            "pass": kind,
            "peer": name,
            "peer / lookaround": race.ratio(name, MINE),
            "peer ms/image": race.seconds(name) * 1e3 / batch,
            "lookaround ms/image": race.seconds(MINE) * 1e3 / batch,
        }
        for name in race.timings
        if name not in (MINE, MATRIX_PRODUCT)
    ]


def _fastest_rows(bench: Bench, rows: list[Row]) -> list[Row]:
    """The row of the fastest peer, with the target; none without a peer."""
    if not rows:
        return []
    row = min(rows, key=_ratio)
    least = LEAST_RATIO[str(row["pass"])] if bench.promised else None
    return [
        {
            "shape": row["shape"],
            "pass": row["pass"],
            "fastest peer": row["peer"],
            "fastest peer / lookaround": _ratio(row),
            **verdict(_ratio(row), at_least=least),
        }
    ]


def _ratio(row: Row) -> float:
    return float(row["peer / lookaround"] or 0.0)


def _panel(same: Table, kind: str) -> Panel:
    series: dict[str, dict[str, float]] = {}
    for row in same.rows:
        if row["pass"] == kind:
            series.setdefault(str(row["peer"]), {})[str(row["shape"])] = _ratio(row)
    return Panel(
        f"Same function, {kind}", "time / time of lookaround", series, {"target": LEAST_RATIO[kind]}, log=True
    )
