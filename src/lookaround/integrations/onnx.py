"""ONNX files, of standard operators alone, read by onnxruntime."""

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor

from lookaround.errors import ArgumentError, ExportError, message
from lookaround.integrations.deployment import Example, Graph, Plan
from lookaround.integrations.onnx_attention import TRANSLATIONS, by_one_operator
from lookaround.integrations.torch_export import trace
from lookaround.integrations.verification import Run

STANDARD_DOMAINS = {"", "ai.onnx"}
OLDEST_OPSET = 18
THRESHOLD = "score_threshold"  # the constant of a detector's graph


def write(
    graph: Graph, plan: Plan, path: Path, metadata: Mapping[str, str], opset: int | None = None
) -> dict[str, Any]:
    """Write a graph as ONNX.

    Args:
        graph: what `make_graph` made; its attention layers are changed.
        plan: how it is exported.
        path: the file.
        metadata: what the file says of itself.
        opset: version of the operators; that of PyTorch's exporter if not given.

    Returns:
        What there is to say of the file: opset, nodes, operators.

    Raises:
        ArgumentError: the plan is for something else.
        ExportError: the graph holds operators that are not ONNX's own.
    """
    if plan.operator != "portable" or plan.dtype == "bfloat16":
        must = "ONNX must be of the portable operator, in float32 or float16"
        raise ArgumentError(message("export", must, f"{plan.operator}, {plan.dtype}"))
    newest = onnx.defs.onnx_opset_version()
    if opset is not None and not OLDEST_OPSET <= opset <= newest:
        raise ArgumentError(message("export", f"opset must be from {OLDEST_OPSET} to {newest}", opset))
    by_one_operator(graph.model)
    traced = trace(graph, plan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other libraries, about their own calls
        program = torch.onnx.export(
            traced,
            (),
            dynamo=True,
            input_names=list(graph.input_names),
            output_names=list(graph.output_names),
            opset_version=opset,
            custom_translation_table=TRANSLATIONS,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _name_sizes(model)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model)
    check_operators(model)
    onnx.save(model, path)
    nodes = list(_nodes(model.graph))
    return {
        "opset": next(entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS),
        "nodes": len(nodes),
        "operators": sorted({node.op_type for node in nodes}),
    }


def load(path: Path, score_threshold: float | None = None) -> Run:
    """Open a file with onnxruntime, on the CPU, with as many threads as PyTorch has.

    Args:
        path: the file.
        score_threshold: replaces that of a detector.
    """
    model = onnx.load(path)
    if score_threshold is not None:
        constant = next(entry for entry in model.graph.initializer if entry.name == THRESHOLD)
        constant.CopyFrom(onnx.numpy_helper.from_array(torch.tensor(score_threshold).numpy(), THRESHOLD))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [entry.name for entry in session.get_inputs()]

    def run(inputs: Example) -> list[Tensor]:
        feed = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, feed)]

    return run


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Return what a file says of itself: task, class_names, preprocessing and more.

    Args:
        path: a file that `lookaround export` wrote.
    """
    model = onnx.load(path, load_external_data=False)
    return {entry.key: json.loads(entry.value) for entry in model.metadata_props}


def _name_sizes(model: Any) -> None:
    """Give the symbols of sizes the names that people know them by, wherever they stand."""
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    names = {
        symbol: name
        for size, name in zip(sizes, ("batch", "", "rows", "columns"), strict=True)
        for symbol in re.findall(r"[A-Za-z]\w*", size.dim_param)
    }
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = re.sub(r"[A-Za-z]\w*", lambda m: names.get(m[0], m[0]), size.dim_param)


def _nodes(graph: Any) -> Iterator[Any]:
    """Yield the nodes of a graph and of the graphs in them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def check_operators(model: Any) -> None:
    """Refuse a model with operators of others, or functions.

    Raises:
        ExportError: it has some.
    """
    domains = {entry.domain for entry in model.opset_import} | {node.domain for node in _nodes(model.graph)}
    others = sorted(domains - STANDARD_DOMAINS) + [function.name for function in model.functions]
    if others:
        must = "every operator must be one of ONNX's own"
        raise ExportError(message("export", must, ", ".join(others)))
