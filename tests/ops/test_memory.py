"""Memory: `blocked` never holds a copy of the image for every pixel of the window."""

from dataclasses import replace

import pytest
import torch

from backends_under_test import NAMES, skip_unless_runs
from lookaround.ops import local_attention
from memory_meter import peak_bytes
from strategies import Case

MEBIBYTE = 2**20
# The size that the project promises: batch 8, 64 channels in 8 heads, 56x56 pixels, a window of 7x7.
PROMISED = Case(batch=8, height=56, width=56, heads=8, head_dim=8, value_dim=8, kernel_size=7)


def forward_and_backward_peak(backend: str, case: Case) -> int:
    leaves = [t.requires_grad_() for t in case.tensors() if t is not None]

    def work() -> object:
        out = local_attention(*leaves, **case.options, backend=backend)
        return torch.autograd.grad(out, leaves, torch.ones_like(out))

    return peak_bytes(work)


def test_the_meter_sees_the_worst_moment_and_not_the_sum() -> None:
    def work() -> torch.Tensor:
        for _ in range(3):
            first = torch.ones(MEBIBYTE)  # 4 MiB
            first = first + 1  # 4 more, then 4 fewer
        return first

    assert 8 * MEBIBYTE <= peak_bytes(work) < 12.1 * MEBIBYTE


def test_the_meter_sees_what_backward_holds() -> None:
    leaf = torch.ones(MEBIBYTE, requires_grad=True)
    assert peak_bytes(lambda: torch.autograd.grad(leaf.exp().sum(), leaf)) >= 8 * MEBIBYTE


@pytest.mark.parametrize("border", ["mask", "zeros"])
@pytest.mark.parametrize("backend", [name for name in NAMES if name not in ("reference", "triton")])
def test_a_fast_backend_holds_no_copy_per_window_pixel(backend: str, border: str) -> None:
    """For each image more, the reference holds 160 copies of it (49 of its keys, 49 of its values, ...)."""
    small = Case(
        batch=4, height=32, width=32, heads=4, head_dim=16, value_dim=16, kernel_size=7, border=border
    )
    skip_unless_runs(backend, small)
    large = replace(small, batch=8)
    grown = forward_and_backward_peak(backend, large) - forward_and_backward_peak(backend, small)
    assert grown / (4 * 32 * 32 * 64 * 4) < 30


@pytest.mark.slow
@pytest.mark.parametrize("backend", [name for name in NAMES if name not in ("reference", "triton")])
def test_peak_memory_is_at_most_a_fifth_of_the_reference(backend: str) -> None:
    skip_unless_runs(backend, PROMISED)
    mine, reference = (forward_and_backward_peak(name, PROMISED) for name in (backend, "reference"))
    assert mine <= reference / 5, f"{mine / MEBIBYTE:.0f} MiB against {reference / MEBIBYTE:.0f} MiB"
