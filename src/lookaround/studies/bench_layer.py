"""Suite `layer`: the operator at the sizes of ResNet-50; the whole layer against a 3x3 convolution."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lookaround.nn import LocalAttention2d
from lookaround.ops.cost import backward_flops, call_cost
from lookaround.studies.bench_context import Bench, Race
from lookaround.studies.bench_shapes import (
    Problem,
    Shape,
    check_backends,
    make_problem,
    shapes,
    usable_backends,
)
from lookaround.studies.bench_tables import Panel, Row, Table, verdict

BATCH_SIZE = 16
LEAST_SHARE, LEAST_SHARE_AT_7 = 0.5, 0.4
MOST_BACKWARD = 2.5
MOST_OF_CONVOLUTION, MOST_OF_CONVOLUTION_AT_64 = 1.0, 1.3
OPERATOR_COLUMNS = {
    "shape": "",
    "backend": "",
    "forward / matrix product": ".0%",
    "share: target": "",
    "share: met": "",
    "backward / forward": ".2f",
    "backward: target": "",
    "backward: met": "",
    "backward / matrix product": ".0%",
    "forward GFLOP/s": ".1f",
    "backward GFLOP/s": ".1f",
    "forward ms/image": ".3f",
    "backward ms/image": ".3f",
}
LAYER_COLUMNS = {
    "shape": "",
    "pass": "",
    "attention / convolution": ".2f",
    "target": "",
    "met": "",
    "attention ms/image": ".3f",
    "convolution ms/image": ".3f",
    "of it the projections": ".0%",
}


def run(bench: Bench) -> tuple[list[Table], list[Panel]]:
    """Measure; returns the tables and what to draw."""
    batch = bench.batch_size(BATCH_SIZE)
    operator = Table(
        f"Operator, batch {batch}",
        OPERATOR_COLUMNS,
        remark="Rates count executed FLOPs. Query, key and value are slices of one tensor and lie as in the "
        "layer: on the processor those of wide images as channels of pixels.",
    )
    layer = Table(
        f"Whole layer (projections and attention) against nn.Conv2d(C, C, 3), batch {batch}",
        LAYER_COLUMNS,
        remark="Forward in inference mode; training is forward and backward, gradient of the input included.",
    )
    for shape in shapes(bench):
        operator.rows.extend(_measure_operator(bench, shape, batch))
        layer.rows.extend(_measure_layer(bench, shape, batch))
    return [operator, layer], [_operator_panel(operator), _layer_panel(layer)]


def _measure_operator(bench: Bench, shape: Shape, batch: int) -> list[Row]:
    backends = usable_backends(bench, shape)
    check_backends(bench, shape, backends)
    problem = make_problem(bench, shape, batch)
    work, flops = {}, {}
    for name in backends:
        forward, backward = f"{name} forward", f"{name} backward"
        work[forward] = problem.forward_work(_call(problem, name))
        work[backward] = _backward_work(problem, problem.run(name))
        flops[forward] = call_cost(problem.call).executed_flops
        flops[backward] = backward_flops(problem.call)
    race = bench.measure(f"operator, {shape}", work, flops)
    return [_operator_row(bench, race, shape, name, batch) for name in backends]


def _call(problem: Problem, name: str) -> Callable[[], Tensor]:
    return lambda: problem.run(name)


def _backward_work(problem: Problem, out: Tensor) -> Callable[[], object]:
    return lambda: problem.gradients(out, keep=True)


def _operator_row(bench: Bench, race: Race, shape: Shape, name: str, batch: int) -> Row:
    forward, backward = f"{name} forward", f"{name} backward"
    share, slower = race.share(forward), race.ratio(backward, forward)
    promised = bench.promised and name == "cpu"
    least = LEAST_SHARE_AT_7 if shape.size == 7 else LEAST_SHARE
    of_share = verdict(share, at_least=least if promised else None)
    of_backward = verdict(slower, at_most=MOST_BACKWARD if promised else None)
    return {
        "shape": str(shape),
        "backend": name,
        "forward / matrix product": share,
        "share: target": of_share["target"],
        "share: met": of_share["met"],
        "backward / forward": slower,
        "backward: target": of_backward["target"],
        "backward: met": of_backward["met"],
        "backward / matrix product": race.share(backward),
        "forward GFLOP/s": race.rate(forward) / 1e9,
        "backward GFLOP/s": race.rate(backward) / 1e9,
        "forward ms/image": race.seconds(forward) * 1e3 / batch,
        "backward ms/image": race.seconds(backward) * 1e3 / batch,
    }


def _measure_layer(bench: Bench, shape: Shape, batch: int) -> list[Row]:
    channels = shape.channels
    attention = LocalAttention2d(channels, channels, shape.kernel_size, num_heads=shape.heads)
    convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    images = torch.randn(batch, channels, shape.size, shape.size, device=bench.device, dtype=bench.dtype)
    images = images.to(memory_format=torch.channels_last).requires_grad_()
    layers: dict[str, nn.Module] = {"attention": attention, "convolution": convolution}
    work: dict[str, Callable[[], object]] = {}
    for name, layer in layers.items():
        layer.to(bench.device, bench.dtype).to(memory_format=torch.channels_last)
        work[f"{name} forward"] = forward_work(layer, images)
        work[f"{name} training"] = training_work(layer, images)
    pixels = images.detach().permute(0, 2, 3, 1)
    work["projections forward"] = forward_work(attention.projection, pixels)
    work["projections training"] = training_work(attention.projection, pixels.requires_grad_())
    race = bench.measure(f"layer, {shape}", work)
    return [_layer_row(bench, race, shape, kind, batch) for kind in ("forward", "training")]


def _layer_row(bench: Bench, race: Race, shape: Shape, kind: str, batch: int) -> Row:
    attention, convolution = f"attention {kind}", f"convolution {kind}"
    ratio = race.ratio(attention, convolution)
    most = MOST_OF_CONVOLUTION_AT_64 if shape.channels == 64 else MOST_OF_CONVOLUTION
    return {
        "shape": str(shape),
        "pass": kind,
        "attention / convolution": ratio,
        **verdict(ratio, at_most=most if bench.promised else None),
        "attention ms/image": race.seconds(attention) * 1e3 / batch,
        "convolution ms/image": race.seconds(convolution) * 1e3 / batch,
        "of it the projections": race.ratio(f"projections {kind}", attention),
    }


def forward_work(layer: nn.Module, images: Tensor) -> Callable[[], object]:
    """A layer's forward pass in inference mode, as work to time."""

    def work() -> object:
        with torch.inference_mode():
            return layer(images)

    return work


def training_work(layer: nn.Module, images: Tensor) -> Callable[[], object]:
    """A layer's forward and backward pass, as work to time."""
    leaves = [images, *layer.parameters()]
    with torch.no_grad():
        grad_out = torch.randn_like(layer(images))
    return lambda: torch.autograd.grad(layer(images), leaves, grad_out)


def _operator_panel(table: Table) -> Panel:
    series: dict[str, dict[str, float]] = {}
    for row in table.rows:
        for kind in ("forward", "backward"):
            share = row[f"{kind} / matrix product"]
            series.setdefault(f"{row['backend']} {kind}", {})[str(row["shape"])] = float(share or 0.0)
    return Panel("Operator", "rate / rate of a matrix product", series, {"target (forward)": LEAST_SHARE})


def _layer_panel(table: Table) -> Panel:
    series: dict[str, dict[str, float]] = {}
    for row in table.rows:
        ratio = float(row["attention / convolution"] or 0.0)
        series.setdefault(str(row["pass"]), {})[str(row["shape"])] = ratio
    return Panel("Whole layer", "time / time of the 3x3 convolution", series, {"the convolution": 1.0})
