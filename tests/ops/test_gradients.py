"""Gradients by finite differences, second derivatives, and gradients of some inputs alone."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from backends_under_test import EVERY_BACKEND, device_for, skip_unless_runs
from lookaround.ops import local_attention
from oracle import GRADIENT_NAMES
from strategies import Case

SMALL = {"batch": 1, "height": 3, "width": 2, "heads": 2, "head_dim": 2, "value_dim": 1}
CASES = {
    "mask": Case(**SMALL, kernel_size=3),
    "zeros": Case(**SMALL, kernel_size=(3, 5), border="zeros", row_per_head=True),
    "mask_padded": Case(**SMALL, kernel_size=3, padding=0.3, column_per_head=True, seed=3),
    "zeros_padded": Case(**SMALL, kernel_size=3, padding=0.3, border="zeros", seed=3),
    "dilated": Case(**SMALL, kernel_size=(3, 1), dilation=2, scale=0.5),
    "position_only": Case(**SMALL, has_key=False, border="zeros"),
    "no_tables": Case(**SMALL, tables="none"),
}
EVERY_CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def function_and_leaves(backend: str, case: Case) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    *floats, mask = case.tensors(torch.float64, device_for(backend))
    leaves = {n: t.requires_grad_() for n, t in zip(GRADIENT_NAMES, floats, strict=True) if t is not None}

    def call(*given: Tensor) -> Tensor:
        named = dict(zip(leaves, given, strict=True))
        return local_attention(
            *(named.get(name) for name in GRADIENT_NAMES), mask, **case.options, backend=backend
        )

    return call, tuple(leaves.values())


def test_padded_cases_have_both_kinds_of_pixels() -> None:
    for name in ("mask_padded", "zeros_padded"):
        mask = CASES[name].tensors()[-1]
        assert mask.any()
        assert not mask.all()


@EVERY_CASE
@EVERY_BACKEND
def test_gradcheck(backend: str, case: Case) -> None:
    skip_unless_runs(backend, case, torch.float64)
    call, leaves = function_and_leaves(backend, case)
    assert torch.autograd.gradcheck(call, leaves)


def refusal_of_second_derivatives(call: Callable[..., Tensor], leaves: tuple[Tensor, ...]) -> str | None:
    grads = torch.autograd.grad(call(*leaves).square().sum(), leaves, create_graph=True)
    try:
        torch.autograd.grad(sum(g.square().sum() for g in grads), leaves)
    except RuntimeError as error:
        return str(error)
    return None


@EVERY_CASE
@EVERY_BACKEND
def test_second_derivatives_are_right_or_refused(backend: str, case: Case) -> None:
    """A kernel may have no second derivatives; it then says so, and never gives wrong ones."""
    skip_unless_runs(backend, case, torch.float64)
    call, leaves = function_and_leaves(backend, case)
    refusal = None if backend in ("reference", "blocked") else refusal_of_second_derivatives(call, leaves)
    if refusal is None:
        assert torch.autograd.gradgradcheck(call, leaves, fast_mode=True)
    else:
        assert "reference" in refusal or "once_differentiable" in refusal


@pytest.mark.parametrize("border", ["mask", "zeros"])
@pytest.mark.parametrize("wanted", GRADIENT_NAMES)
@EVERY_BACKEND
def test_gradient_of_one_input_alone_is_that_of_all(backend: str, wanted: str, border: str) -> None:
    case = Case(border=border, padding=0.2)
    skip_unless_runs(backend, case)
    *floats, mask = case.tensors(torch.float32, device_for(backend))

    def gradient(names: tuple[str, ...]) -> Tensor:
        named = zip(GRADIENT_NAMES, floats, strict=True)
        leaves = {name: tensor.detach().requires_grad_(name in names) for name, tensor in named}
        out = local_attention(*leaves.values(), mask, **case.options, backend=backend)
        return torch.autograd.grad(out.square().sum(), leaves[wanted])[0]

    alone, together = gradient((wanted,)), gradient(GRADIENT_NAMES)
    assert alone.any()
    torch.testing.assert_close(alone, together)


@pytest.mark.parametrize("border", ["mask", "zeros"])
@EVERY_BACKEND
def test_gradient_reaches_the_window_and_nothing_else(backend: str, border: str) -> None:
    """For every pixel: the pixels with a gradient are those of the window, found here by counting."""
    case = Case(batch=1, height=5, width=6, kernel_size=(3, 5), dilation=(2, 1), border=border, heads=1)
    skip_unless_runs(backend, case)
    *floats, mask = case.tensors(torch.float32, device_for(backend))
    leaves = [t.requires_grad_() for t in floats]
    out = local_attention(*leaves, mask, **case.options, backend=backend)
    for y in range(case.height):
        for x in range(case.width):
            grads = torch.autograd.grad(out[0, y, x].sum(), leaves[:3], retain_graph=True)
            window = {
                (y + dy, x + dx)
                for dy in (-2, 0, 2)
                for dx in (-2, -1, 0, 1, 2)
                if 0 <= y + dy < case.height and 0 <= x + dx < case.width
            }
            query, key, value = (set(map(tuple, g[0].abs().sum((-1, -2)).nonzero().tolist())) for g in grads)
            assert query == {(y, x)}
            assert key == window
            assert value == window


@EVERY_BACKEND
def test_no_graph_where_no_gradient_is_wanted(backend: str) -> None:
    case = Case()
    skip_unless_runs(backend, case)
    tensors = case.tensors(torch.float32, device_for(backend))
    with torch.no_grad():
        out = local_attention(*(t if t is None else t.requires_grad_() for t in tensors), **case.options)
    assert not out.requires_grad
