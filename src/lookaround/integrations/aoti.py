"""Packages compiled ahead of time: machine code of a graph, for C++ and Python with nothing but libtorch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lookaround.integrations.deployment import Example, Graph, Plan
from lookaround.integrations.torch_export import check_size, describe, trace
from lookaround.integrations.verification import Run


def write(
    graph: Graph, plan: Plan, path: Path, metadata: Mapping[str, str], opset: int | None = None
) -> dict[str, Any]:
    """Compile a graph into a package; takes minutes for a large network.

    Args:
        graph: what `make_graph` made.
        plan: how it is exported.
        path: the file, of the ending .pt2.
        metadata: what the package says of itself.
        opset: has no meaning here.

    Returns:
        What there is to say of the file: nodes, other libraries' operators, and the libraries to load.
    """
    from torch._inductor import aoti_compile_and_package

    check_size(graph, plan)
    program = trace(graph, plan)
    configs = {"aot_inductor.metadata": dict(metadata)}
    aoti_compile_and_package(program, package_path=str(path), inductor_configs=configs)
    facts = describe(program)
    return facts | {"libraries": _libraries(facts["other_operators"])}


def load(path: Path, score_threshold: float | None = None) -> Run:
    """Read a package.

    Args:
        path: the file.
        score_threshold: replaces that of a detector.
    """
    package = torch._inductor.aoti_load_package(str(path))
    if score_threshold is not None:
        constants = {"score_threshold": torch.tensor(score_threshold)}
        package.load_constants(constants, check_full_update=False)

    def run(inputs: Example) -> list[Tensor]:
        with torch.inference_mode():
            return list(package(*inputs))

    return run


def _libraries(operators: list[str]) -> list[str]:
    """Name the libraries that a program without Python has to load before the package."""
    libraries = []
    if any(name.startswith("lookaround.") for name in operators):
        from lookaround.ops.backends import cpu_build

        libraries.append(str(cpu_build.find_or_build().path))
    if any(name.startswith("torchvision.") for name in operators):
        from torchvision.extension import _get_extension_path

        libraries.append(str(_get_extension_path("_C_stable")))
    return libraries
