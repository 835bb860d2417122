"""The weights that pictures are drawn from are those of the operator."""

import pytest
import torch
from hypothesis import given

import oracle
from closeness import assert_all_exact_enough, eps
from lookaround.ops import attention_weights, local_attention
from strategies import HURTFUL, Case, cases


def weights_of(case: Case, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    query, key, _, *rest = case.tensors(dtype)
    return attention_weights(query, key, *rest, **case.options)


def check(case: Case) -> None:
    weights = weights_of(case)
    query, key, _, *rest = case.tensors()
    exact = oracle.attention_weights(query, key, *rest, **case.options)
    assert_all_exact_enough({"weights": weights}, {"weights": exact})
    assert not weights[exact == 0].any()
    assert (weights >= 0).all()
    mask = torch.zeros(query.shape[:3], dtype=torch.bool) if rest[2] is None else rest[2]
    sums = weights.sum((-1, -2))
    expected = (~mask).float()[..., None].expand_as(sums)
    torch.testing.assert_close(sums, expected, rtol=0, atol=eps(torch.float32))


@pytest.mark.parametrize("case", HURTFUL.values(), ids=HURTFUL.keys())
def test_equals_the_loops_where_it_hurts(case: Case) -> None:
    check(case)


@given(case=cases())
def test_equals_the_loops_and_sums_to_one(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_weights_come_in_float32_at_least(dtype: torch.dtype) -> None:
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    assert weights_of(Case(), dtype).dtype == expected


def test_shape_names_every_window_place() -> None:
    assert weights_of(Case(kernel_size=(3, 5))).shape == (2, 5, 4, 2, 3, 5)


@pytest.mark.parametrize("border", ["mask", "zeros"])
def test_weights_sum_values_to_the_output(border: str) -> None:
    """One value per pixel that is one-hot in its position: the output spells out the weights."""
    case = Case(batch=1, height=4, width=4, heads=1, value_dim=16, border=border, dilation=(1, 2))
    query, key, _, row, column, _ = case.tensors(torch.float64)
    positions = torch.eye(16, dtype=torch.float64).view(1, 4, 4, 1, 16)
    out = local_attention(query, key, positions, row, column, **case.options).view(4, 4, 4, 4)
    weights = attention_weights(query, key, row, column, **case.options)[0, :, :, 0]
    for i, j in ((0, 0), (1, 1), (2, 0), (0, 2)):  # above-left, centre, below-left, above-right
        for y in range(max(0, 1 - i), min(4, 5 - i)):
            for x in range(max(0, 2 - 2 * j), min(4, 6 - 2 * j)):
                there = out[y, x, y + i - 1, x + 2 * (j - 1)]
                torch.testing.assert_close(weights[y, x, i, j], there)


def test_autocast_brings_every_input_to_its_dtype() -> None:
    case = Case()
    query, key, _, row, column, _ = case.tensors()
    with torch.autocast("cpu", torch.bfloat16):
        weights = attention_weights(query, key.bfloat16(), row, column, **case.options)
    cast = [t.bfloat16() for t in (query, key, row, column)]
    assert weights.dtype == torch.float32
    assert torch.equal(weights, attention_weights(*cast, **case.options))
