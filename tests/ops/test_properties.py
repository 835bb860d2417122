"""What must hold of local attention, whoever computes it."""

import itertools

import pytest
import torch
from torch import Tensor

from backends_under_test import (
    EVERY_BACKEND,
    backward,
    device_for,
    forward,
    skip_unless_runs,
    widest_dtype,
)
from lookaround.ops import local_attention
from strategies import Case

BORDERS = pytest.mark.parametrize("border", ["mask", "zeros"])


def call(backend: str, case: Case, *tensors: Tensor | None) -> Tensor:
    return local_attention(*tensors, **case.options, backend=backend)


def prepared(backend: str, case: Case) -> tuple[Tensor | None, ...]:
    dtype = widest_dtype(backend)
    skip_unless_runs(backend, case, dtype)
    return case.tensors(dtype, device_for(backend))


@EVERY_BACKEND
def test_equal_values_come_out_as_they_are(backend: str) -> None:
    case = Case(kernel_size=5)
    query, key, value, row, column, _ = prepared(backend, case)
    out = call(backend, case, query, key, torch.full_like(value, 3.0), row, column)
    torch.testing.assert_close(out, torch.full_like(out, 3.0))


@EVERY_BACKEND
def test_zeros_border_pulls_equal_values_down_at_the_border_only(backend: str) -> None:
    case = Case(height=5, width=5, border="zeros")
    query, key, value, row, column, _ = prepared(backend, case)
    out = call(backend, case, query, key, torch.ones_like(value), row, column)
    torch.testing.assert_close(out[:, 1:-1, 1:-1], torch.ones_like(out[:, 1:-1, 1:-1]))
    assert (out[:, 0] < 0.999).all()
    assert (out[:, :, -1] < 0.999).all()


@BORDERS
@EVERY_BACKEND
def test_nothing_outside_the_window_matters(backend: str, border: str) -> None:
    case = Case(batch=1, height=7, width=7, kernel_size=(3, 5), border=border)
    query, key, value, row, column, _ = prepared(backend, case)
    before = call(backend, case, query, key, value, row, column)
    key[:, 3, 3], value[:, 3, 3] = 50.0, 50.0
    changed = (call(backend, case, query, key, value, row, column) != before).any(-1).any(-1)[0]
    expected = torch.zeros(7, 7, dtype=torch.bool)
    expected[2:5, 1:6] = True
    assert torch.equal(changed.cpu(), expected)


@BORDERS
@EVERY_BACKEND
def test_images_of_a_batch_and_heads_do_not_mix(backend: str, border: str) -> None:
    case = Case(batch=2, heads=2, border=border)
    query, key, value, row, column, _ = prepared(backend, case)
    before = call(backend, case, query, key, value, row, column)
    for tensor in (query, key, value):
        tensor[1, :, :, 1] *= 3
    changed = (call(backend, case, query, key, value, row, column) != before).flatten(1, 2).any(-1).any(1)
    assert changed.tolist() == [[False, False], [False, True]]


@BORDERS
@EVERY_BACKEND
def test_shifting_the_image_shifts_the_interior(backend: str, border: str) -> None:
    case = Case(height=8, width=9, kernel_size=3, dilation=(1, 2), border=border)
    query, key, value, row, column, _ = prepared(backend, case)
    out = call(backend, case, query, key, value, row, column)
    moved = [torch.roll(t, (2, 1), dims=(1, 2)) for t in (query, key, value)]
    shifted = call(backend, case, *moved, row, column)
    torch.testing.assert_close(shifted[:, 3:-1, 3:-2], out[:, 1:-3, 2:-3])


@EVERY_BACKEND
def test_permuting_the_heads_permutes_the_output(backend: str) -> None:
    case = Case(heads=3, row_per_head=True, column_per_head=True)
    query, key, value, row, column, _ = prepared(backend, case)
    order = [2, 0, 1]
    out = call(backend, case, query, key, value, row, column)
    permuted = call(
        backend, case, *(t[..., order, :] for t in (query, key, value)), row[order], column[order]
    )
    torch.testing.assert_close(permuted, out[..., order, :])


@EVERY_BACKEND
def test_a_shared_table_is_the_same_table_for_every_head(backend: str) -> None:
    case = Case(heads=3)
    query, key, value, row, column, _ = prepared(backend, case)
    shared = call(backend, case, query, key, value, row, column)
    repeated = call(backend, case, query, key, value, row.expand(3, -1, -1), column.expand(3, -1, -1))
    torch.testing.assert_close(shared, repeated)


@pytest.mark.parametrize("zeroed", ["row", "column"])
@BORDERS
@EVERY_BACKEND
def test_zeroing_one_table_changes_every_head(backend: str, border: str, zeroed: str) -> None:
    case = Case(heads=4, border=border)
    query, key, value, row, column, _ = prepared(backend, case)
    before = call(backend, case, query, key, value, row, column)
    without = (row * 0, column) if zeroed == "row" else (row, column * 0)
    difference = (call(backend, case, query, key, value, *without) - before).abs().amax((0, 1, 2, 4))
    assert (difference > 1e-3).all()


@pytest.mark.parametrize("missing", ["row", "column"])
@BORDERS
@EVERY_BACKEND
def test_a_missing_table_is_a_table_of_zeros(backend: str, border: str, missing: str) -> None:
    case = Case(border=border)
    query, key, value, row, column, _ = prepared(backend, case)
    zeros = (row * 0, column) if missing == "row" else (row, column * 0)
    none = (None, column) if missing == "row" else (row, None)
    expected = call(backend, case, query, key, value, *zeros)
    torch.testing.assert_close(call(backend, case, query, key, value, *none), expected)


@EVERY_BACKEND
def test_position_only_is_a_key_of_zeros(backend: str) -> None:
    case = Case(border="zeros")
    query, key, value, row, column, _ = prepared(backend, case)
    expected = call(backend, case, query, key * 0, value, row, column)
    torch.testing.assert_close(call(backend, case, query, None, value, row, column), expected)


@EVERY_BACKEND
def test_no_key_and_no_tables_is_the_mean_of_the_window(backend: str) -> None:
    case = Case(height=6, width=5, has_key=False, tables="none", border="zeros")
    query, _, value, *_ = prepared(backend, case)
    planes = value.permute(0, 3, 4, 1, 2).flatten(0, 1)
    mean = torch.nn.functional.avg_pool2d(planes, 3, stride=1, padding=1)
    expected = mean.unflatten(0, (2, 2)).permute(0, 3, 4, 1, 2)
    torch.testing.assert_close(call(backend, case, query, None, value), expected)


@pytest.mark.parametrize("scale", [1.0, 0.25])
@EVERY_BACKEND
def test_a_window_over_the_whole_image_is_dense_attention(backend: str, scale: float) -> None:
    case = Case(height=4, width=5, kernel_size=(7, 9), tables="none", scale=scale)
    query, key, value, *_ = prepared(backend, case)
    dense = [t.flatten(1, 2).transpose(1, 2) for t in (query, key, value)]
    expected = torch.nn.functional.scaled_dot_product_attention(*dense, scale=scale)
    torch.testing.assert_close(call(backend, case, query, key, value).flatten(1, 2), expected.transpose(1, 2))


@EVERY_BACKEND
def test_output_is_linear_in_the_values(backend: str) -> None:
    case = Case(border="zeros")
    query, key, value, row, column, _ = prepared(backend, case)
    other = value.flip(0)
    one, two = (call(backend, case, query, key, v, row, column) for v in (value, other))
    torch.testing.assert_close(call(backend, case, query, key, 2 * value - other, row, column), 2 * one - two)


@EVERY_BACKEND
def test_padding_around_an_image_is_the_border(backend: str) -> None:
    """A small image inside a padded frame comes out as the small image alone does, under either border."""
    for border in ("mask", "zeros"):
        case = Case(height=6, width=7, kernel_size=(3, 5), border=border)
        query, key, value, row, column, _ = prepared(backend, case)
        mask = torch.ones(2, 6, 7, dtype=torch.bool, device=query.device)
        mask[:, 1:5, 2:5] = False
        framed = call(backend, case, query, key, value, row, column, mask)
        alone = call(backend, case, *(t[:, 1:5, 2:5] for t in (query, key, value)), row, column)
        torch.testing.assert_close(framed[:, 1:5, 2:5], alone)
        assert not framed[mask].any()


@BORDERS
@EVERY_BACKEND
def test_a_mask_of_no_padding_changes_nothing(backend: str, border: str) -> None:
    case = Case(border=border)
    query, key, value, row, column, _ = prepared(backend, case)
    mask = torch.zeros(query.shape[:3], dtype=torch.bool, device=query.device)
    expected = call(backend, case, query, key, value, row, column)
    torch.testing.assert_close(call(backend, case, query, key, value, row, column, mask), expected)


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
@BORDERS
@EVERY_BACKEND
def test_what_lies_in_padded_pixels_never_leaks(backend: str, border: str, poison: float) -> None:
    case = Case(padding=0.3, border=border)
    query, key, value, row, column, mask = prepared(backend, case)
    results = []
    for filling in (0.0, poison):
        leaves = [t.masked_fill(mask[..., None, None], filling).requires_grad_() for t in (query, key, value)]
        leaves += [row.clone().requires_grad_(), column.clone().requires_grad_()]
        out = call(backend, case, *leaves, mask)
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    assert all(torch.equal(clean, poisoned) for clean, poisoned in zip(*results, strict=True))
    assert all(not grad[mask].any() for grad in results[1][1:4])


@BORDERS
@EVERY_BACKEND
def test_a_pixel_with_nothing_to_see_gives_zero(backend: str, border: str) -> None:
    case = Case(padding=1.0, border=border)
    skip_unless_runs(backend, case)
    out = forward(backend, case)
    assert torch.equal(out, torch.zeros_like(out))
    assert all(torch.equal(grad, torch.zeros_like(grad)) for grad in backward(backend, case).values())


@BORDERS
@EVERY_BACKEND
def test_an_empty_batch_gives_an_empty_output_and_no_gradient_to_tables(backend: str, border: str) -> None:
    case = Case(batch=0, border=border)
    skip_unless_runs(backend, case)
    assert forward(backend, case).shape == (0, 5, 4, 2, 3)
    grads = backward(backend, case)
    assert torch.equal(grads["row_embedding"], torch.zeros_like(grads["row_embedding"]))
    assert torch.equal(grads["column_embedding"], torch.zeros_like(grads["column_embedding"]))


@EVERY_BACKEND
def test_odd_kernels_up_to_fifteen_place_their_centre_on_the_query(backend: str) -> None:
    """A column table that favours one offset makes the output the image moved by that offset."""
    for size, dilation in itertools.product((1, 3, 9, 15), (1, 2)):
        case = Case(
            batch=1, height=1, width=20, heads=1, kernel_size=(1, size), dilation=dilation, tables="column"
        )
        query, _, value, *_ = prepared(backend, case)
        column = torch.zeros(size, 2, dtype=query.dtype, device=query.device)
        column[-1] = 500.0
        out = call(backend, case, torch.ones_like(query), None, value, None, column)
        offset = (size // 2) * dilation
        torch.testing.assert_close(out[:, :, : 20 - offset], value[:, :, offset:])
