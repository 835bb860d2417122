"""Every backend equals the loops of the oracle, in every dtype, forwards and backwards."""

import pytest
import torch
from hypothesis import given

import oracle
from backends_under_test import (
    EVERY_BACKEND,
    backward,
    device_for,
    forward,
    next_unless_runs,
    skip_unless_runs,
)
from closeness import assert_all_close, assert_all_exact_enough
from lookaround.ops import local_attention
from strategies import HURTFUL, Case, cases

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
HURTFUL_CASES = pytest.mark.parametrize("case", HURTFUL.values(), ids=HURTFUL.keys())
EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def check_forward(backend: str, case: Case, dtype: torch.dtype) -> None:
    exact = {"out": oracle.local_attention(*case.tensors(dtype), **case.options)}
    reference = {"out": forward("reference", case, dtype)}
    assert_all_exact_enough(reference, exact)
    actual = forward(backend, case, dtype)
    assert actual.dtype == dtype
    assert_all_close({"out": actual}, reference, exact)


def check_backward(backend: str, case: Case, dtype: torch.dtype) -> None:
    exact = oracle.gradients(case.upstream(dtype), *case.tensors(dtype), **case.options)
    reference = backward("reference", case, dtype)
    assert_all_exact_enough(reference, exact)
    assert_all_close(backward(backend, case, dtype), reference, exact)


@HURTFUL_CASES
@EVERY_BACKEND
def test_equals_the_loops_where_it_hurts(backend: str, case: Case) -> None:
    skip_unless_runs(backend, case)
    check_forward(backend, case, torch.float32)


@HURTFUL_CASES
@EVERY_BACKEND
def test_gradients_equal_the_loops_where_it_hurts(backend: str, case: Case) -> None:
    skip_unless_runs(backend, case)
    check_backward(backend, case, torch.float32)


@EVERY_BACKEND
@given(case=cases())
def test_equals_the_loops(backend: str, case: Case) -> None:
    next_unless_runs(backend, case)
    check_forward(backend, case, torch.float32)


@EVERY_BACKEND
@given(case=cases())
def test_gradients_equal_the_loops(backend: str, case: Case) -> None:
    next_unless_runs(backend, case)
    check_backward(backend, case, torch.float32)


@pytest.mark.parametrize("border", ["mask", "zeros"])
@EVERY_BACKEND
def test_a_larger_image_equals_the_reference(backend: str, border: str) -> None:
    """Large enough for many blocks and several chunks of them; the loops would take minutes."""
    case = Case(batch=3, height=33, width=45, kernel_size=7, border=border, padding=0.05, row_per_head=True)
    skip_unless_runs(backend, case, torch.float64)
    reference = {
        "out": forward("reference", case, torch.float64),
        **backward("reference", case, torch.float64),
    }
    actual = {"out": forward(backend, case, torch.float64), **backward(backend, case, torch.float64)}
    for name, tensor in actual.items():
        torch.testing.assert_close(tensor.cpu(), reference[name], rtol=1e-10, atol=1e-10)


@EVERY_DTYPE
@pytest.mark.parametrize("border", ["mask", "zeros"])
@EVERY_BACKEND
def test_every_dtype_equals_the_loops(backend: str, border: str, dtype: torch.dtype) -> None:
    case = Case(kernel_size=(5, 3), border=border, padding=0.3, layout="channels_last_view")
    skip_unless_runs(backend, case, dtype)
    check_forward(backend, case, dtype)
    check_backward(backend, case, dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@EVERY_BACKEND
def test_half_types_compute_in_float32(backend: str, dtype: torch.dtype) -> None:
    """The result is that of float32 computing, rounded once: at most one unit in the last place away."""
    case = Case(height=6, width=6, kernel_size=7, head_dim=8)
    skip_unless_runs(backend, case, dtype)
    upcast = [t.float() for t in case.tensors(dtype) if t is not None]
    exact = local_attention(*upcast, **case.options, backend="reference")
    out = forward(backend, case, dtype).cpu()
    assert (out.float() - exact).abs().max() <= torch.finfo(dtype).eps * exact.abs().max()


@EVERY_BACKEND
def test_autocast_brings_every_input_to_its_dtype(backend: str) -> None:
    case = Case()
    skip_unless_runs(backend, case, torch.bfloat16)
    query, key, value, row, column, _ = case.tensors(torch.float32, device_for(backend))
    with torch.autocast(device_for(backend), torch.bfloat16):
        out = local_attention(query, key.bfloat16(), value, row, column, **case.options, backend=backend)
    cast = [t.bfloat16() for t in (query, key, value, row, column)]
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, local_attention(*cast, **case.options, backend=backend))


@EVERY_BACKEND
def test_autocast_gives_gradients_in_the_dtype_of_each_input(backend: str) -> None:
    case = Case()
    skip_unless_runs(backend, case, torch.bfloat16)
    tensors = case.tensors(torch.float32, device_for(backend))
    leaves = [t.requires_grad_() for t in tensors if t is not None]
    with torch.autocast(device_for(backend), torch.bfloat16):
        out = local_attention(*leaves, **case.options, backend=backend)
    out.float().square().sum().backward()
    assert [leaf.grad.dtype for leaf in leaves] == [torch.float32] * 5
    assert all(leaf.grad.isfinite().all() and leaf.grad.any() for leaf in leaves)


@EVERY_BACKEND
def test_two_calls_give_the_same_bits(backend: str) -> None:
    case = Case(height=9, width=8, kernel_size=5, border="zeros", padding=0.2)
    skip_unless_runs(backend, case)
    assert torch.equal(forward(backend, case), forward(backend, case))
    first, second = backward(backend, case), backward(backend, case)
    assert all(torch.equal(first[name], second[name]) for name in first)


@EVERY_BACKEND
def test_inputs_are_left_as_they_were(backend: str) -> None:
    case = Case(padding=0.3)
    skip_unless_runs(backend, case)
    tensors = case.tensors(torch.float32, device_for(backend))
    copies = [t.clone() for t in tensors]
    local_attention(*tensors, **case.options, backend=backend)
    assert all(torch.equal(t, copy) for t, copy in zip(tensors, copies, strict=True))
