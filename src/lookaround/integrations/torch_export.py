"""Programs of torch.export: a graph of PyTorch's operators in a file, without the code of this package."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim

from lookaround.errors import ArgumentError, message
from lookaround.integrations.deployment import Example, Graph, Plan, draw_inputs
from lookaround.integrations.verification import Run

METADATA = "lookaround.json"  # the name inside the file
LARGEST = 1 << 16  # of a batch, or a side in steps


def trace(graph: Graph, plan: Plan) -> torch.export.ExportedProgram:
    """Turn a graph into a program.

    Args:
        graph: what `make_graph` made.
        plan: how it is exported.

    Raises:
        UnsupportedCallError: the operator cannot run with this dtype, or not on this machine.
    """
    inputs = draw_inputs(graph, plan.traced_size(graph))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other libraries, about their own calls
        return torch.export.export(graph, inputs, dynamic_shapes=_shapes(graph) if plan.dynamic else None)


def _shapes(graph: Graph) -> tuple[dict[int, Any], ...]:
    """Say which sizes are free: of a classifier all, of a detector's images multiples of its step."""
    if graph.step == 1:
        return ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    # Every map has two pixels a side at least, as the graph that is traced takes for granted.
    least = graph.stride // graph.step + 1
    rows, columns = (graph.step * Dim(name, min=least, max=LARGEST) for name in ("rows", "columns"))
    batch = Dim("batch", min=1, max=LARGEST)
    return {0: batch, 2: rows, 3: columns}, {0: batch}


def check_size(graph: Graph, plan: Plan) -> None:
    """Refuse images that are too small for a program that serves every size.

    Raises:
        ArgumentError: a side is no longer than the network's stride.
    """
    if plan.dynamic and min(plan.image_size) <= graph.stride:
        must = f"a program for every size needs sides of more than {graph.stride} pixels"
        hint = "export it for this size alone."
        raise ArgumentError(message("export", must, plan.image_size, hint=hint))


def write(
    graph: Graph, plan: Plan, path: Path, metadata: Mapping[str, str], opset: int | None = None
) -> dict[str, Any]:
    """Write a graph as a program of torch.export.

    Args:
        graph: what `make_graph` made.
        plan: how it is exported.
        path: the file.
        metadata: what the file says of itself.
        opset: has no meaning here.

    Returns:
        What there is to say of the file: nodes, and operators that PyTorch alone has not.
    """
    check_size(graph, plan)
    program = trace(graph, plan)
    document = "{" + ", ".join(f'"{key}": {value}' for key, value in metadata.items()) + "}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, path, extra_files={METADATA: document})
    return describe(program)


def load(path: Path, score_threshold: float | None = None) -> Run:
    """Read a program.

    Args:
        path: the file.
        score_threshold: replaces that of a detector.
    """
    module = torch.export.load(path).module()
    if score_threshold is not None:
        assert isinstance(module.score_threshold, Tensor)
        module.score_threshold.fill_(score_threshold)

    def run(inputs: Example) -> list[Tensor]:
        with torch.inference_mode():
            return list(module(*inputs))

    return run


def describe(program: torch.export.ExportedProgram) -> dict[str, Any]:
    """Say how many nodes a program has, and which of its operators come from other libraries."""
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    names = {str(node.target) for node in calls}
    own = ("aten.", "prims.", "<built-in", "_operator", "<function")
    return {"nodes": len(calls), "other_operators": sorted(n for n in names if not n.startswith(own))}
