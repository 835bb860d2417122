"""`lookaround export`: a trained network in a file that runs without this package."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lookaround.errors import ArgumentError, message

if TYPE_CHECKING:
    from lookaround.integrations.deployment import Plan
    from lookaround.integrations.export import Export
    from lookaround.models.checkpoint import ModelRecord
    from lookaround.models.variants import Model

HELP = "A trained network as ONNX, as a program of torch.export, or compiled; read back and compared."
NAMES = {"onnx": "model.onnx", "torch-export": "exported.pt2", "aoti": "compiled.pt2"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line of `lookaround export`."""
    parser.add_argument(
        "--weights", required=True, metavar="RUN", help="run folder, or its weights.safetensors"
    )
    parser.add_argument("--to", required=True, choices=list(NAMES), help="kind of file")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the file (in the run folder)")
    parser.add_argument(
        "--dynamic", action="store_true", help="serve every batch size and image size, not one of each"
    )
    parser.add_argument(
        "--image-size", type=int, nargs="+", metavar="N", help="height, and width if it differs"
    )
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="images at a time (1)")
    parser.add_argument(
        "--dtype", choices=["float32", "float16", "bfloat16"], help="of weights and layers (float32)"
    )
    parser.add_argument("--half", action="store_true", help="the same as --dtype float16")
    parser.add_argument(
        "--operator", choices=["portable", "native"], default="portable",
        help="attention in operators that PyTorch has, or in the kernel of this package (portable)",
    )  # fmt: skip
    parser.add_argument(
        "--pixels",
        action="store_true",
        help="take pixels from 0 to 255 (uint8), and normalise them in the graph",
    )
    parser.add_argument("--opset", type=int, metavar="N", help="version of ONNX's operators")
    parser.add_argument(
        "--repeats", type=int, default=7, metavar="N", help="samples of each time; 0: no times (7)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Export, verify, measure, and say what was written.

    Raises:
        ArgumentError: an argument cannot be used, alone or beside the others.
        CheckpointError: the weights cannot be read.
        ExportError: the file would not compute what the network computes; none is left.
        UnsupportedCallError: the native operator cannot run with this dtype, or not on this machine.
    """
    from lookaround.integrations.export import export_model
    from lookaround.models.checkpoint import load_model

    if arguments.repeats < 0:
        raise ArgumentError(message("export", "--repeats must be at least 0", arguments.repeats))
    dtype = _dtype(arguments)
    model, record = load_model(arguments.weights)
    plan = _plan(arguments, record, dtype)
    out = _folder(arguments.weights) / NAMES[arguments.to] if arguments.out is None else arguments.out
    export = export_model(model, record, out, to=arguments.to, plan=plan, opset=arguments.opset)
    facts = _facts(export, plan)
    if arguments.repeats:
        facts["seconds"] = measure(export, model, record, plan, arguments.repeats)
    print(json.dumps(facts, indent=2) if arguments.json else describe(facts))
    return 0


def measure(
    export: "Export", model: "Model", record: "ModelRecord", plan: "Plan", repeats: int
) -> dict[str, Any]:
    """Time the file beside PyTorch: the same graph, by the fastest operator there is, and as many threads.

    Args:
        export: what was written.
        model: its network.
        record: what belongs to it.
        plan: how it was exported.
        repeats: samples of each.

    Returns:
        Median seconds of the export and of PyTorch, and what was measured.
    """
    import torch

    from lookaround.integrations.deployment import draw_inputs, make_graph, set_backend
    from lookaround.integrations.export import load_exported
    from lookaround.studies.timing import HostClock, time_interleaved

    graph = make_graph(model, plan, record.preprocessing)
    set_backend(graph, "auto")
    inputs, loaded = (
        draw_inputs(graph, plan.served_sizes(graph.step)[0]),
        load_exported(export.path, export.to),
    )
    with torch.inference_mode():
        work = {"export": lambda: loaded(inputs), "pytorch": lambda: graph(*inputs)}
        times = time_interleaved(work, HostClock(0.05), repeats, lambda name: None)
    medians = {name: timing.median_seconds for name, timing in times.items()}
    return medians | {"repeats": repeats, "threads": torch.get_num_threads()}


def describe(facts: dict[str, Any]) -> str:
    """Put what `run` found into lines to read."""
    batch, *size = facts["sizes"][0]
    others = ", ".join(f"{n}x{h}x{w}" for n, h, w in facts["sizes"][1:])
    differences = ", ".join(f"{name} {value:.2g}" for name, value in facts["differences"].items())
    lines = [
        f"{facts['path']}  {facts['bytes'] / 1e6:.2f} MB, {facts['nodes']} nodes"
        + (f", opset {facts['opset']}" if "opset" in facts else ""),
        f"takes     {', '.join(facts['inputs'])}: {batch} x {size[0]}x{size[1]}, {facts['dtype']} inside"
        + (f"; also tried: {others}" if others else ""),
        f"returns   {', '.join(facts['outputs'])}",
        f"verified  {facts['values']} values against PyTorch in float32; largest difference: {differences}",
    ]
    if facts.get("other_operators"):
        lines.append(f"needs     {', '.join(facts['other_operators'])}")
    lines += [f"load      {library}" for library in facts.get("libraries", ())]
    if "seconds" in facts:
        lines.append(f"speed     {_describe_speed(facts['to'], facts['seconds'], batch, size)}")
    return "\n".join(lines)


def _describe_speed(to: str, seconds: dict[str, Any], batch: int, size: list[int]) -> str:
    runtime = {"onnx": "onnxruntime", "torch-export": "exported program", "aoti": "compiled package"}[to]
    what = f"median of {seconds['repeats']}, {batch} x {size[0]}x{size[1]}, {seconds['threads']} threads"
    milliseconds = {name: f"{seconds[name] * 1e3:.2f} ms" for name in ("export", "pytorch")}
    return f"{runtime} {milliseconds['export']}, PyTorch {milliseconds['pytorch']} ({what})"


def _facts(export: "Export", plan: "Plan") -> dict[str, Any]:
    verified = asdict(export.verified)
    return {
        "path": str(export.path),
        "to": export.to,
        "bytes": export.path.stat().st_size,
        "inputs": export.inputs,
        "outputs": export.outputs,
        "dynamic": plan.dynamic,
        "dtype": plan.dtype,
        "operator": plan.operator,
        "takes_pixels": plan.takes_pixels,
        **export.facts,
        **verified,
    }


def _dtype(arguments: argparse.Namespace) -> str:
    if arguments.half and arguments.dtype not in (None, "float16"):
        must = "--half must be left out beside another --dtype"
        raise ArgumentError(message("export", must, f"--dtype {arguments.dtype}"))
    if arguments.half:
        return "float16"
    return "float32" if arguments.dtype is None else str(arguments.dtype)


def _plan(arguments: argparse.Namespace, record: "ModelRecord", dtype: str) -> "Plan":
    from lookaround.integrations.deployment import Plan

    size = _known_size(record) if arguments.image_size is None else arguments.image_size
    if len(size) > 2:
        raise ArgumentError(message("export", "--image-size must be one number, or height and width", size))
    return Plan(
        image_size=(size[0], size[-1]),
        batch_size=arguments.batch_size,
        dynamic=arguments.dynamic,
        dtype=dtype,
        takes_pixels=arguments.pixels,
        operator=arguments.operator,
    )


def _known_size(record: "ModelRecord") -> list[int]:
    """Return the size that the network was trained on, for detectors up to what batches must be."""
    from lookaround.models.variants import DETECTION, task_of

    size = record.preprocessing.get("image_size")
    if size is None:
        must = "--image-size must be given for weights whose record does not tell it"
        raise ArgumentError(message("export", must, "none"))
    if task_of(record.name) == DETECTION:
        from lookaround.models.retinanet import SIZE_DIVISIBLE

        size = -(-size // SIZE_DIVISIBLE) * SIZE_DIVISIBLE
    return [size]


def _folder(weights: str) -> Path:
    path = Path(weights)
    return path if path.is_dir() else path.parent
