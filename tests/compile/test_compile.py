"""Compiled, the operator is one graph and gives what it gives in eager mode, gradients included."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor

from backends_under_test import EVERY_BACKEND, device_for, gradients, skip_unless_runs
from lookaround.ops import local_attention
from oracle import GRADIENT_NAMES
from strategies import Case

CASES = {
    "mask": Case(kernel_size=(3, 5), row_per_head=True),
    "zeros_padded_dilated": Case(height=6, border="zeros", padding=0.3, dilation=(1, 2), scale=0.5),
    "position_only": Case(has_key=False, kernel_size=5),
}


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def attend(backend: str, case: Case) -> Callable[..., Tensor]:
    """Give the call as a function of tensors alone."""

    def call(*tensors: Tensor | None) -> Tensor:
        return local_attention(*tensors, **case.options, backend=backend)

    return call


def output_and_gradients(function: Callable[..., Tensor], backend: str, case: Case) -> dict[str, Tensor]:
    *floats, mask = case.tensors(torch.float32, device_for(backend))
    named = zip(GRADIENT_NAMES, floats, strict=True)
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in named if tensor is not None}
    out = function(*(leaves.get(name) for name in GRADIENT_NAMES), mask)
    upstream = case.upstream(torch.float32, device_for(backend))
    return {"out": out.detach(), **gradients(out, leaves, upstream)}


def assert_same(compiled: dict[str, Tensor], eager: dict[str, Tensor]) -> None:
    assert compiled.keys() == eager.keys()
    for name in eager:
        torch.testing.assert_close(compiled[name], eager[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@EVERY_BACKEND
def test_one_graph_forwards_and_backwards(backend: str, case: Case) -> None:
    """The graph that autograd and the compiler make, without the minutes that generating code takes."""
    skip_unless_runs(backend, case)
    call = attend(backend, case)
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    assert_same(output_and_gradients(compiled, backend, case), output_and_gradients(call, backend, case))


@EVERY_BACKEND
def test_generated_code_gives_what_eager_gives(backend: str) -> None:
    case = Case(padding=0.3)
    skip_unless_runs(backend, case)
    call = attend(backend, case)
    compiled = torch.compile(call, fullgraph=True)
    assert_same(output_and_gradients(compiled, backend, case), output_and_gradients(call, backend, case))


@EVERY_BACKEND
def test_a_second_graph_serves_every_other_size(backend: str) -> None:
    """The first size gives a graph of its own; the second makes batch, height and width symbols, for good."""
    case = Case(batch=3, height=9, width=10)
    skip_unless_runs(backend, case)
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(attend(backend, case), fullgraph=True, backend=counter)
    for batch, height, width in ((3, 9, 10), (2, 17, 12), (4, 10, 19)):
        sized = replace(case, batch=batch, height=height, width=width)
        eager = output_and_gradients(attend(backend, sized), backend, sized)
        assert_same(output_and_gradients(compiled, backend, sized), eager)
    assert counter.frame_count == 2


@EVERY_BACKEND
def test_autocast_compiles(backend: str) -> None:
    case = Case()
    skip_unless_runs(backend, case, torch.bfloat16)
    tensors = case.tensors(torch.float32, device_for(backend))
    compiled = torch.compile(attend(backend, case), fullgraph=True, backend="aot_eager")
    with torch.autocast(device_for(backend), torch.bfloat16):
        out = compiled(*tensors)
        eager = attend(backend, case)(*tensors)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, eager, rtol=2e-2, atol=2e-2)


@EVERY_BACKEND
def test_refusals_stay_errors_when_compiled(backend: str) -> None:
    case = Case(kernel_size=4)
    compiled = torch.compile(attend(backend, case), fullgraph=True, backend="eager")
    with pytest.raises(Exception, match="kernel_size must be odd"):
        compiled(*replace(case, kernel_size=3).tensors())
