"""Networks in files that run without this package: ONNX, torch.export, packages compiled ahead of time."""

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lookaround
from lookaround.errors import ArgumentError, UnknownNameError, closest, message
from lookaround.integrations.deployment import Graph, Plan, make_graph, make_reference
from lookaround.integrations.verification import Run, Verified, verify
from lookaround.models import ModelRecord, ResNet
from lookaround.training.files import replacing

if TYPE_CHECKING:
    from lookaround.models.variants import Model


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        module: writes it by `write(graph, plan, path, metadata, opset)`, reads it by `load(path)`.
        suffix: how its name must end.
        summary: what it is, in a line.
    """

    module: str
    suffix: str
    summary: str


FORMATS = {
    "onnx": Format("lookaround.integrations.onnx", ".onnx", "ONNX, of standard operators alone"),
    "torch-export": Format("lookaround.integrations.torch_export", ".pt2", "a program of torch.export"),
    "aoti": Format("lookaround.integrations.aoti", ".pt2", "machine code, for C++ with libtorch"),
}


@dataclass(frozen=True)
class Export:
    """A file that was written, and what is known of it.

    Attributes:
        path: the file.
        to: its kind.
        inputs: names of what the graph takes.
        outputs: names of what it returns.
        facts: what its kind has to say: nodes, operators, opset, libraries.
        verified: how it compares with the network.
    """

    path: Path
    to: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    facts: dict[str, Any]
    verified: Verified


def export_model(
    model: "Model", record: ModelRecord, path: str | Path, *, to: str, plan: Plan, opset: int | None = None
) -> Export:
    """Write a network as a file of another kind, read it back, and hold it against the network.

    Nothing is left of a file that does not compute what the network computes.

    Args:
        model: the network, in eval mode; it is not changed.
        record: what belongs to it: preprocessing and class names are stored in the file.
        path: the file.
        to: "onnx", "torch-export" or "aoti".
        plan: image size, dtype and so on.
        opset: version of ONNX's operators.

    Raises:
        UnknownNameError: there is no such kind of file.
        ArgumentError: the path has another ending, or the plan is not for this kind of file.
        ExportError: the file does not compute what the network computes.
        UnsupportedCallError: the native operator cannot run with this dtype, or not on this machine.
    """
    form, target = _format(to), Path(path)
    if target.suffix != form.suffix or target.is_dir():
        raise ArgumentError(message("export", f"the file must end in {form.suffix}", target))
    if opset is not None and to != "onnx":
        raise ArgumentError(message("export", "opset must be left out, but for ONNX", opset))
    module = importlib.import_module(form.module)
    graph = make_graph(model, plan, record.preprocessing)
    metadata = describe(graph, record, plan)
    with replacing(target) as temporary:
        facts = module.write(graph, plan, temporary, metadata, opset)
        verified = _verify(module, temporary, model, record, plan)
    return Export(target, to, graph.input_names, graph.output_names, facts, verified)


def load_exported(path: str | Path, to: str) -> Run:
    """Open a file that `export_model` wrote, as a function from tensors to tensors.

    Args:
        path: the file; of another's making it may hold code, but for ONNX.
        to: its kind.
    """
    run: Run = importlib.import_module(_format(to).module).load(Path(path))
    return run


def describe(graph: Graph, record: ModelRecord, plan: Plan) -> dict[str, str]:
    """Return what a file says of itself, each value as JSON."""
    facts = {
        "task": "classification" if isinstance(graph.model, ResNet) else "detection",
        "model": record.name,
        "class_names": record.class_names,
        "category_ids": record.category_ids,
        "preprocessing": record.preprocessing,
        "takes_pixels": plan.takes_pixels,
        "dtype": plan.dtype,
        "made_by": f"lookaround {lookaround.__version__}",
    }
    return {name: json.dumps(value) for name, value in facts.items()}


def _format(to: str) -> Format:
    if to not in FORMATS:
        hint = closest(str(to), list(FORMATS))
        raise UnknownNameError(message("export", "the kind of file must be known", repr(to), hint=hint))
    return FORMATS[to]


def _verify(module: Any, path: Path, model: "Model", record: ModelRecord, plan: Plan) -> Verified:
    reference = make_reference(model, plan, record.preprocessing)
    if isinstance(reference.model, ResNet):
        return verify(module.load(path), reference, plan)
    # A threshold of zero shows all boxes: of noise a trained detector finds next to nothing.
    reference.model.score_thresh = 0.0
    return verify(module.load(path, score_threshold=0.0), reference, plan)
