"""torch.func: transforms of the operator agree with loops over it."""

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from backends_under_test import EVERY_BACKEND, device_for, skip_unless_runs
from lookaround.ops import local_attention
from strategies import Case

BORDERS = pytest.mark.parametrize("border", ["mask", "zeros"])


def prepared(backend: str, border: str) -> tuple[Case, tuple[Tensor | None, ...]]:
    case = Case(batch=3, border=border, kernel_size=(3, 5))
    skip_unless_runs(backend, case)
    return case, case.tensors(torch.float32, device_for(backend))[:5]


def attend(backend: str, case: Case, *tensors: Tensor | None) -> Tensor:
    return local_attention(*tensors, **case.options, backend=backend)


@BORDERS
@EVERY_BACKEND
def test_vmap_over_images_is_a_batch(backend: str, border: str) -> None:
    case, (query, key, value, row, column) = prepared(backend, border)

    def one(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(backend, case, q[None], k[None], v[None], row, column)[0]

    torch.testing.assert_close(
        vmap(one)(query, key, value), attend(backend, case, query, key, value, row, column)
    )


@EVERY_BACKEND
def test_vmap_over_tables_is_one_call_for_each(backend: str) -> None:
    case, (query, key, value, row, column) = prepared(backend, "zeros")
    rows, columns = torch.stack([row, -row, 2 * row]), torch.stack([column, column, -column])
    together = vmap(lambda r, c: attend(backend, case, query, key, value, r, c))(rows, columns)
    each = [attend(backend, case, query, key, value, r, c) for r, c in zip(rows, columns, strict=True)]
    torch.testing.assert_close(together, torch.stack(each))


@BORDERS
@EVERY_BACKEND
def test_grad_is_that_of_backward(backend: str, border: str) -> None:
    case, tensors = prepared(backend, border)
    functional = grad(lambda *given: attend(backend, case, *given).square().sum(), argnums=(0, 1, 2, 3, 4))(
        *tensors
    )
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    expected = torch.autograd.grad(attend(backend, case, *leaves).square().sum(), leaves)
    for mine, theirs in zip(functional, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


@BORDERS
@EVERY_BACKEND
def test_per_sample_gradients_of_the_tables(backend: str, border: str) -> None:
    """vmap of grad: one gradient of the shared tables for each image, as a loop gives them."""
    case, (query, key, value, row, column) = prepared(backend, border)

    def loss(r: Tensor, c: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(backend, case, q[None], k[None], v[None], r, c).square().sum()

    gradient = grad(loss, argnums=(0, 1))
    together = vmap(gradient, in_dims=(None, None, 0, 0, 0))(row, column, query, key, value)
    each = [gradient(row, column, q, k, v) for q, k, v in zip(query, key, value, strict=True)]
    for mine, theirs in zip(together, zip(*each, strict=True), strict=True):
        torch.testing.assert_close(mine, torch.stack(theirs))


@EVERY_BACKEND
def test_functional_call_of_a_module(backend: str) -> None:
    case, (query, key, value, row, column) = prepared(backend, "mask")

    class Tables(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.row, self.column = torch.nn.Parameter(row * 0), torch.nn.Parameter(column * 0)

        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return attend(backend, case, q, k, v, self.row, self.column)

    out = functional_call(Tables(), {"row": row, "column": column}, (query, key, value))
    torch.testing.assert_close(out, attend(backend, case, query, key, value, row, column))
