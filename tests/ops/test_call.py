"""What a call refuses, with the words it refuses in."""

import math
from typing import Any

import pytest
import torch

from backends_under_test import NAMES
from lookaround.errors import ArgumentError, DtypeError, ShapeError
from lookaround.ops import attention_weights, explain_backends, local_attention
from lookaround.ops.call import Inputs, check_call
from strategies import Case

pytestmark = pytest.mark.usefixtures("shapes_unchecked")

NAMES_OF_INPUTS = Inputs._fields


def call(**changes: Any) -> torch.Tensor:
    """Call with sound inputs, but for the changes."""
    case = Case(padding=0.3)
    arguments = dict(zip(NAMES_OF_INPUTS, case.tensors(), strict=True)) | case.options | changes
    return local_attention(**arguments)


def test_the_unchanged_call_is_sound() -> None:
    assert call().shape == (2, 5, 4, 2, 3)


@pytest.mark.parametrize("size", [2, 4, (3, 4), (2, 3)])
def test_even_windows_are_refused_because_they_have_no_centre(size: int | tuple[int, int]) -> None:
    with pytest.raises(
        ArgumentError, match=r"local_attention: kernel_size must be odd, because .*no centre pixel"
    ):
        call(kernel_size=size)


@pytest.mark.parametrize(("size", "better"), [(4, r"try 5\."), ((3, 6), r"try \(3, 7\)\.")])
def test_the_next_odd_window_is_proposed(size: int | tuple[int, int], better: str) -> None:
    with pytest.raises(ArgumentError, match=better):
        call(kernel_size=size)


@pytest.mark.parametrize("option", ["kernel_size", "dilation"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3", (3,), (3, 3, 3), (3, 0), None])
def test_sizes_that_are_no_sizes(option: str, value: Any) -> None:
    must = rf"{option} must be an integer >= 1, or a pair \(vertical, horizontal\) of them; got "
    with pytest.raises(ArgumentError, match=must):
        call(**{option: value})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "1", None])
def test_scales_that_are_no_numbers(value: Any) -> None:
    with pytest.raises(ArgumentError, match=r"scale must be a finite number; got "):
        call(scale=value)


def test_unknown_borders_list_the_known() -> None:
    with pytest.raises(ArgumentError, match=r"border must be 'mask' or 'zeros'; got 'reflect'\."):
        call(border="reflect")


@pytest.mark.parametrize("shape", [(4, 4), (2, 5, 4, 8), (1, 2, 5, 4, 2, 4)])
def test_query_must_have_five_dimensions(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"query must have the 5 dimensions .*; got \(.*\)\.\nhint: split"):
        call(query=torch.zeros(shape))


def test_dimensions_that_are_empty_without_reason() -> None:
    empty = torch.zeros(2, 0, 4, 2, 4)
    with pytest.raises(
        ShapeError, match=r"query: height, width, heads and head_dim must be >= 1; actual: \(2, 0"
    ):
        call(query=empty, key=empty, value=empty, key_padding_mask=None)


MISFITS = {
    "key": (
        torch.zeros(2, 5, 4, 2, 6),
        r"key: expected \(2, 5, 4, 2, 4\), as query; actual: \(2, 5, 4, 2, 6\)",
    ),
    "value": (
        torch.zeros(2, 4, 5, 2, 3),
        r"value: expected \(2, 5, 4, 2, any value_dim >= 1\); actual: \(2, 4, 5",
    ),
    "row_embedding": (
        torch.zeros(5, 2),
        r"row_embedding: expected \(3, 2\) \(shared .*\) or \(2, 3, 2\).*\(5, 2\)",
    ),
    "column_embedding": (torch.zeros(1, 3, 2), r"column_embedding: expected \(3, 2\).*actual: \(1, 3, 2\)"),
    "key_padding_mask": (
        torch.zeros(2, 5, dtype=torch.bool),
        r"key_padding_mask: expected \(2, 5, 4\); actual: \(2, 5\)",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_one_misfit_says_expected_and_actual(name: str) -> None:
    tensor, match = MISFITS[name]
    with pytest.raises(ShapeError, match=match):
        call(**{name: tensor})


def test_all_misfits_are_said_at_once() -> None:
    with pytest.raises(ShapeError) as caught:
        call(**{name: tensor for name, (tensor, _) in MISFITS.items()})
    lines = str(caught.value).splitlines()
    assert (
        lines[0]
        == "local_attention: the shapes of the inputs must fit together; got query of shape (2, 5, 4, 2, 4)."
    )
    assert [line.split(":")[0].strip() for line in lines[1:]] == list(MISFITS)


def test_value_dim_of_zero_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"value: expected .*any value_dim >= 1"):
        call(value=torch.zeros(2, 5, 4, 2, 0))


@pytest.mark.parametrize("name", ["row_embedding", "column_embedding"])
def test_tables_need_an_even_head_dim(name: str) -> None:
    odd = torch.zeros(2, 5, 4, 2, 5)
    others = {"row_embedding": None, "column_embedding": None} | {name: torch.zeros(3, 2)}
    with pytest.raises(ShapeError, match=rf"{name}: head_dim must be even, half for the rows .*actual: 5"):
        call(query=odd, key=odd, **others)


def test_kernel_height_is_of_rows_and_kernel_width_of_columns() -> None:
    row, column = torch.zeros(3, 2), torch.zeros(7, 2)
    assert call(kernel_size=(3, 7), row_embedding=row, column_embedding=column).shape == (2, 5, 4, 2, 3)
    with pytest.raises(ShapeError, match=r"row_embedding: expected \(7, 2\)"):
        call(kernel_size=(7, 3), row_embedding=row, column_embedding=column)


@pytest.mark.parametrize("name", ["key", "value", "row_embedding", "column_embedding"])
def test_mixed_dtypes_are_refused_outside_autocast(name: str) -> None:
    tensor = dict(zip(NAMES_OF_INPUTS, Case().tensors(torch.bfloat16), strict=True))[name]
    match = rf"must have the dtype and device of query.*\n.*{name}: expected torch.float32, .*torch.bfloat16"
    with pytest.raises(DtypeError, match=match):
        call(**{name: tensor})


def test_mixed_dtypes_propose_autocast() -> None:
    with pytest.raises(DtypeError, match=r"hint: convert .* or call under torch\.autocast"):
        call(value=torch.zeros(2, 5, 4, 2, 3, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.bool])
def test_dtypes_that_are_no_numbers_to_attend_with(dtype: torch.dtype) -> None:
    changes = {n: t.to(dtype) for n, t in zip(NAMES_OF_INPUTS[:5], Case().tensors()[:5], strict=True)}
    with pytest.raises(
        DtypeError, match=r"query must have one of the dtypes torch\.float64, .*; got torch\."
    ):
        call(**changes)


def test_padding_must_be_bool() -> None:
    with pytest.raises(DtypeError, match=r"key_padding_mask must be of dtype bool; got torch\.float32"):
        call(key_padding_mask=torch.zeros(2, 5, 4))


def test_devices_must_be_one() -> None:
    with pytest.raises(DtypeError, match=r"value: expected device cpu, as query; actual: meta"):
        call(value=torch.zeros(2, 5, 4, 2, 3, device="meta"))


@pytest.mark.parametrize("backend", NAMES)
def test_every_backend_refuses_in_the_same_words(backend: str) -> None:
    with pytest.raises(ArgumentError, match="kernel_size must be odd"):
        call(kernel_size=4, backend=backend)
    with pytest.raises(ShapeError, match="key: expected"):
        call(key=MISFITS["key"][0], backend=backend)


def test_messages_name_the_function_that_was_called() -> None:
    query, key, value, row, column, mask = Case().tensors()
    with pytest.raises(ArgumentError, match=r"^attention_weights: kernel_size"):
        attention_weights(query, key, row, column, mask, kernel_size=2)
    with pytest.raises(ArgumentError, match=r"^explain_backends: kernel_size"):
        explain_backends(query, key, value, row, column, mask, kernel_size=2)


def test_a_call_describes_what_it_was_given() -> None:
    case = Case(kernel_size=(3, 5), dilation=2, border="zeros", scale=0.5, tables="row", padding=0.3)
    described = check_call("test", Inputs(*case.tensors(torch.bfloat16)), **case.options)
    assert (described.batch, described.height, described.width) == (2, 5, 4)
    assert (described.num_heads, described.head_dim, described.value_dim) == (2, 4, 3)
    assert (described.kernel_size, described.dilation, described.radius) == ((3, 5), (2, 2), (1, 2))
    assert (described.scale, described.border, described.dtype) == (0.5, "zeros", torch.bfloat16)
    assert (described.has_key, described.has_row_embedding, described.has_column_embedding) == (
        True,
        True,
        False,
    )
    assert described.has_padding
    assert described.accumulation_dtype == torch.float32
    with pytest.raises(AttributeError):
        described.batch = 3  # type: ignore[misc]
