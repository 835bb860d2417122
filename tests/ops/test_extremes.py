"""Never a NaN from finite input: huge logits, overflowing logits, equal logits, and tiny ones."""

import pytest
import torch
from torch import Tensor

import oracle
from backends_under_test import EVERY_BACKEND, device_for, skip_unless_runs
from closeness import assert_all_close, assert_all_exact_enough
from lookaround.ops import attention_weights, local_attention
from strategies import Case

BORDERS = pytest.mark.parametrize("border", ["mask", "zeros"])
EVERY_DTYPE = pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str
)


def run(backend: str, case: Case, *tensors: Tensor | None) -> list[Tensor]:
    """Give the output and every gradient."""
    device = device_for(backend)
    leaves = [None if t is None else t.detach().clone().to(device).requires_grad_() for t in tensors]
    out = local_attention(*leaves, **case.options, backend=backend)
    given = [leaf for leaf in leaves if leaf is not None]
    return [out, *torch.autograd.grad(out.sum(), given, allow_unused=True, materialize_grads=True)]


@BORDERS
@EVERY_DTYPE
@EVERY_BACKEND
def test_logits_of_ten_thousand(backend: str, dtype: torch.dtype, border: str) -> None:
    """Logits of both signs up to 1e4: all finite, and the largest wins everything."""
    case = Case(height=6, width=6, tables="none", head_dim=1, border=border)
    skip_unless_runs(backend, case, dtype)
    query, key, value, *_ = case.tensors(dtype)
    query, key = 100 * query.sign(), 100 * key / key.abs().max()
    results = run(backend, case, query, key, value)
    assert all(result.isfinite().all() for result in results)
    exact = {"out": oracle.local_attention(query, key, value, **case.options)}
    reference = {"out": run("reference", case, query, key, value)[0]}
    assert_all_exact_enough(reference, exact)
    assert_all_close({"out": results[0]}, reference, exact)


@BORDERS
@EVERY_BACKEND
def test_huge_position_logits(backend: str, border: str) -> None:
    case = Case(height=6, width=6, has_key=False, border=border)
    skip_unless_runs(backend, case)
    query, _, value, row, column, _ = case.tensors()
    results = run(backend, case, 100 * query, None, value, 100 * row, 100 * column)
    assert all(result.isfinite().all() for result in results)


@BORDERS
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, -1), (1, -1, -1), (-1, 1, 1), (1, 1, -1)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@EVERY_BACKEND
def test_logits_that_overflow(
    backend: str, dtype: torch.dtype, signs: tuple[int, int, int], border: str
) -> None:
    """Parts beyond the largest number (q·k, q·row, q·column, of these signs) add up to no NaN."""
    case = Case(batch=1, height=3, width=3, heads=1, head_dim=2, border=border)
    skip_unless_runs(backend, case, dtype)
    huge = torch.finfo(dtype).max ** 0.6
    query, key, value, row, column, _ = case.tensors(dtype)
    query = torch.full_like(query, huge)
    key, row, column = (torch.full_like(t, huge) * s for t, s in zip((key, row, column), signs, strict=True))
    assert run(backend, case, query, key, value, row, column)[0].isfinite().all()
    assert run(backend, case, query, key, value, None, None)[0].isfinite().all()
    assert attention_weights(query, key, row, column, **case.options).isfinite().all()


@BORDERS
@EVERY_BACKEND
def test_one_key_of_overwhelming_logit_takes_all_the_weight(backend: str, border: str) -> None:
    case = Case(batch=1, height=3, width=3, heads=1, tables="none", head_dim=1, value_dim=1, border=border)
    skip_unless_runs(backend, case)
    query = torch.full((1, 3, 3, 1, 1), 1e30)
    key = torch.full((1, 3, 3, 1, 1), -1e30)
    key[0, 1, 1] = 1e30
    value = torch.arange(9.0).view(1, 3, 3, 1, 1)
    out = run(backend, case, query, key, value)[0]
    torch.testing.assert_close(out.cpu(), torch.full_like(value, 4.0))


@BORDERS
@EVERY_BACKEND
def test_very_negative_logits_still_beat_what_is_absent(backend: str, border: str) -> None:
    """Under "mask", logits of -1e4 share all the weight; absent pixels must not count as logit 0."""
    case = Case(batch=1, height=3, width=3, heads=1, tables="none", head_dim=1, value_dim=1, border=border)
    skip_unless_runs(backend, case)
    query, key = torch.full((1, 3, 3, 1, 1), 100.0), torch.full((1, 3, 3, 1, 1), -100.0)
    out = run(backend, case, query, key, torch.ones(1, 3, 3, 1, 1))[0][0, :, :, 0, 0].cpu()
    expected = torch.ones(3, 3)
    if border == "zeros":
        expected = torch.zeros(3, 3)
        expected[1, 1] = 1.0
    torch.testing.assert_close(out, expected)


@EVERY_DTYPE
@EVERY_BACKEND
def test_equal_logits_of_any_size_give_equal_weights(backend: str, dtype: torch.dtype) -> None:
    case = Case(batch=1, height=5, width=5, heads=1, tables="none", head_dim=1)
    skip_unless_runs(backend, case, dtype)
    query, _, value, *_ = case.tensors(dtype)
    ones = torch.ones_like(query)
    large = run(backend, case, 90 * ones, 90 * ones, value)[0]
    small = run(backend, case, 1e-4 * ones, 1e-4 * ones, value)[0]
    torch.testing.assert_close(large, small)
