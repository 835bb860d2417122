"""Local attention written in ONNX's operators gives what the reference gives, call by call."""

from dataclasses import replace

import pytest
import torch

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

import onnxscript

from lookaround.integrations import onnx_attention
from lookaround.ops import local_attention
from lookaround.ops.call import check_pair
from strategies import HURTFUL, Case


def in_onnx(case: Case, tensors: tuple[torch.Tensor | None, ...]) -> torch.Tensor:
    """Run the operators one after another, by onnxruntime, without a graph."""
    arrays = [None if t is None else onnxscript.tensor.Tensor(t.contiguous().numpy()) for t in tensors]
    pairs = (list(check_pair("", "", value)) for value in (case.kernel_size, case.dilation))
    return torch.from_numpy(onnx_attention.translate(*arrays, *pairs, case.scale, case.border).value)


@pytest.mark.parametrize("case", HURTFUL.values(), ids=HURTFUL.keys())
def test_every_call_gives_what_the_reference_gives(case: Case) -> None:
    tensors = case.tensors(torch.float32)
    expected = local_attention(*tensors, **case.options, backend="reference")
    torch.testing.assert_close(in_onnx(case, tensors), expected, rtol=1e-4, atol=1e-5)


def test_float16_computes_in_float32() -> None:
    case = Case(padding=0.3)
    tensors = case.tensors(torch.float16)
    found = in_onnx(case, tensors)
    assert found.dtype == torch.float16
    expected = local_attention(*tensors, **case.options, backend="reference")
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)


def test_logits_that_overflow_give_no_nan() -> None:
    case = replace(HURTFUL["everything"], padding=0.0, scale=1e38)
    tensors = case.tensors(torch.float32)
    found = in_onnx(case, tensors)
    assert found.isfinite().all()
    expected = local_attention(*tensors, **case.options, backend="reference")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_what_padding_holds_reaches_nothing() -> None:
    case = Case(padding=0.3)
    *floats, mask = case.tensors(torch.float32)
    query, key, value, *tables = floats
    poisoned = [image.masked_fill(mask[..., None, None], torch.nan) for image in (query, key, value)]
    found = in_onnx(case, (*poisoned, *tables, mask))
    torch.testing.assert_close(found, in_onnx(case, (query, key, value, *tables, mask)))


def test_the_traced_operator_is_the_operator() -> None:
    case = Case(kernel_size=(3, 5), dilation=(2, 1), padding=0.3)
    tensors = case.tensors(torch.float32)
    options = (list(case.kernel_size), list(case.dilation), case.scale, case.border)
    found = onnx_attention.window_attention(*tensors, *options)
    torch.testing.assert_close(found, local_attention(*tensors, **case.options))
    torch.library.opcheck(onnx_attention.window_attention, (*tensors, *options), test_utils="test_faketensor")
