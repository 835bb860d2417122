"""The table of backends, as tests go through it: each skipped with its own reasons where it cannot run."""

import pytest
import torch
from hypothesis import reject
from torch import Tensor

from lookaround.ops import explain_backends, local_attention
from lookaround.ops.backends import BACKENDS
from oracle import GRADIENT_NAMES
from strategies import Case

NAMES = tuple(backend.name for backend in BACKENDS)
EVERY_BACKEND = pytest.mark.parametrize("backend", NAMES)


def device_for(backend: str) -> str:
    """Give the device whose tensors a backend is tested with."""
    return "cuda" if backend == "triton" and torch.cuda.is_available() else "cpu"


def reasons_against(backend: str, case: Case, dtype: torch.dtype = torch.float32) -> list[str]:
    """Give the backend's own reasons against running a case."""
    tensors = case.tensors(dtype, device_for(backend))
    return explain_backends(*tensors, **case.options)[backend]


def widest_dtype(backend: str) -> torch.dtype:
    """Give float64, or float32 for a backend that does not compute it."""
    return torch.float32 if reasons_against(backend, Case(), torch.float64) else torch.float64


def skip_unless_runs(backend: str, case: Case, dtype: torch.dtype = torch.float32) -> None:
    """Skip the test with the backend's own reasons."""
    reasons = reasons_against(backend, case, dtype)
    if reasons:
        pytest.skip(f"{backend}: {'; '.join(reasons)}")


def next_unless_runs(backend: str, case: Case, dtype: torch.dtype = torch.float32) -> None:
    """Inside a hypothesis test: skip where nothing runs, draw again where only this case does not."""
    skip_unless_runs(backend, Case(), dtype)
    if reasons_against(backend, case, dtype):
        reject()


def forward(backend: str, case: Case, dtype: torch.dtype = torch.float32) -> Tensor:
    """Run a case."""
    return local_attention(*case.tensors(dtype, device_for(backend)), **case.options, backend=backend)


def backward(backend: str, case: Case, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Run a case and give the gradient of every float tensor of it, by name."""
    device = device_for(backend)
    *floats, mask = case.tensors(dtype, device)
    named = zip(GRADIENT_NAMES, floats, strict=True)
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in named if tensor is not None}
    out = local_attention(*(leaves.get(n) for n in GRADIENT_NAMES), mask, **case.options, backend=backend)
    return gradients(out, leaves, case.upstream(dtype, device))


def gradients(out: Tensor, leaves: dict[str, Tensor], upstream: Tensor) -> dict[str, Tensor]:
    """Give the gradient of each leaf by name; zeros where the output does not depend on it."""
    wanted = list(leaves.values())
    grads = torch.autograd.grad(out, wanted, upstream, allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, grads, strict=True))
