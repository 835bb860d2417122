"""Layers as single nodes of the graphs that torch.fx traces.

A layer that looks at shapes, modes or hooks before it computes cannot be traced through, and what it chose
while it was traced would hold for ever. It becomes one node instead, as layers of `torch.nn` do.
"""

from typing import Any

from torch import Tensor, nn
from torch.fx import Proxy


def is_traced(x: object) -> bool:
    """Tell whether an input stands for a tensor in a graph that torch.fx is tracing."""
    return isinstance(x, Proxy)


def as_one_node(module: nn.Module, x: Any, *others: Any) -> Tensor:
    """Put a module's call into the graph, and return what stands for its output.

    Args:
        module: the layer, which belongs to the traced network.
        x: an input for which `is_traced` holds.
        others: further inputs.
    """
    proxy: Tensor = x.tracer.create_proxy("call_module", x.tracer.path_of_module(module), (x, *others), {})
    return proxy
