"""The GPU backend's binding: reasons, registration, layouts, sizes. Needs TRITON_INTERPRET=1 or a GPU."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import oracle
from backends_under_test import backward, device_for, forward, skip_unless_runs
from closeness import assert_all_close, assert_close
from lookaround.errors import UnsupportedCallError
from lookaround.ops import explain_backends, local_attention, local_attention_packed
from lookaround.ops.backends import triton
from lookaround.ops.call import Inputs, check_call
from lookaround.ops.cost import backward_flops, call_cost
from strategies import HURTFUL, Case

CASES = {
    "plain": Case(),
    "everything": HURTFUL["everything"],
    "zeros_position_only": HURTFUL["position_only_zeros"],
    "no_tables": Case(tables="none"),
}
EVERY_CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
DEVICE = device_for("triton")


@pytest.fixture
def _available() -> None:
    skip_unless_runs("triton", Case())


needs_triton = pytest.mark.usefixtures("_available")


def arguments(case: Case, dtype: torch.dtype = torch.float32, gradients: bool = True) -> tuple:
    *floats, mask = case.tensors(dtype, DEVICE)
    leaves = [None if t is None else t.detach().requires_grad_(gradients) for t in floats]
    call = check_call("test", Inputs(*leaves, mask), **case.options)
    return (*leaves, mask, call.kernel_size, call.dilation, call.scale, call.border)


def explained(case: Case, dtype: torch.dtype = torch.float32, device: str = "cpu") -> list[str]:
    return explain_backends(*case.tensors(dtype, device), **case.options)["triton"]


def test_importing_the_operator_leaves_triton_alone() -> None:
    code = (
        "import sys, torch, lookaround, lookaround.ops as ops; q = torch.zeros(1, 3, 3, 1, 2);"
        "ops.local_attention(q, q, q, kernel_size=3, backend='blocked');"
        "sys.exit('triton' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_tensors_on_the_cpu_have_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    match = "the tensors are on the CPU: it runs on a GPU, and on the CPU only with TRITON_INTERPRET=1"
    assert explained(Case()) == [match]
    with pytest.raises(UnsupportedCallError, match="only with TRITON_INTERPRET=1"):
        local_attention(*Case().tensors(), **Case().options, backend="triton")


def test_a_missing_triton_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(triton.importlib.util, "find_spec", lambda name: None)
    assert explained(Case()) == ["Triton is not installed"]


def test_an_old_gpu_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7, 5))
    assert triton._why_unavailable("cuda", 0) == "the GPU has compute capability 7.5: it needs 8.0"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert triton._why_unavailable("cuda", 0).startswith("TRITON_INTERPRET is set")


def test_calls_that_no_tile_fits_have_all_their_reasons() -> None:
    case = Case(batch=1, heads=1, head_dim=130, kernel_size=123)
    assert explained(case, torch.float64, "meta") == [
        "the tensors are on meta: it runs on a GPU",
        "the dtype is torch.float64: it computes float32, bfloat16 and float16",
        "head_dim is 130 and value_dim 3: both may be at most 128",
        "kernel_size is (123, 123): it may be at most 121",
    ]


@needs_triton
@pytest.mark.parametrize("case", [CASES["plain"], CASES["zeros_position_only"]], ids=["plain", "zeros"])
def test_opcheck_of_both_operators(case: Case) -> None:
    given = arguments(case)
    torch.library.opcheck(torch.ops.lookaround.triton_forward.default, given)
    given = arguments(case, gradients=False)
    saved = torch.ops.lookaround.triton_forward(*given)
    given = (case.upstream(torch.float32, DEVICE), *given[:6], *saved, *given[6:])
    torch.library.opcheck(torch.ops.lookaround.triton_backward.default, given)


@needs_triton
@EVERY_CASE
def test_flops_are_counted_as_executed(case: Case) -> None:
    *floats, mask = arguments(case)[:6]
    call = check_call("test", Inputs(*floats, mask), **case.options)
    with FlopCounterMode(display=False) as forward_counter:
        out = local_attention(*floats, mask, **case.options, backend="triton")
    with FlopCounterMode(display=False) as backward_counter:
        out.sum().backward()
    assert forward_counter.get_total_flops() == call_cost(call).executed_flops
    assert backward_counter.get_total_flops() == backward_flops(call)


@needs_triton
def test_second_derivatives_are_refused() -> None:
    leaves = [t.requires_grad_() for t in Case().tensors(torch.float32, DEVICE)[:5]]
    out = local_attention(*leaves, **Case().options, backend="triton")
    first = torch.autograd.grad(out.square().sum(), leaves, create_graph=True)
    with pytest.raises(UnsupportedCallError, match=r"first derivatives only.*\n.*backend='reference'"):
        torch.autograd.grad(first[0].square().sum(), leaves)


@needs_triton
@pytest.mark.parametrize("maps", [2, 3])
def test_a_projection_gets_its_gradient_in_one_piece(maps: int) -> None:
    case = Case(row_per_head=True, value_dim=4, padding=0.2, has_key=maps == 3)
    *floats, mask = case.tensors(torch.float32, DEVICE)
    query, key, value, row, column = floats
    given = [t for t in (query, key, value) if t is not None]
    packed = torch.stack(given, 3).requires_grad_()
    options = case.options | {"backend": "triton"}
    out = local_attention_packed(packed, row, column, mask, **options)
    out.square().sum().backward()
    leaves = [t.requires_grad_() for t in given]
    apart = local_attention(query, key, value, row, column, mask, **options)
    apart.square().sum().backward()
    assert torch.equal(out, apart)
    assert torch.equal(packed.grad, torch.stack([leaf.grad for leaf in leaves], 3))


@needs_triton
@pytest.mark.parametrize("layout", ["channels_last_view", "sliced", "expanded"])
def test_inputs_are_read_where_they_lie(layout: str) -> None:
    case = Case(layout=layout, kernel_size=(3, 5))
    contiguous = [t if t is None else t.contiguous() for t in case.tensors(torch.float32, DEVICE)]
    expected = local_attention(*contiguous, **case.options, backend="triton")
    assert torch.equal(forward("triton", case), expected)


@needs_triton
@pytest.mark.parametrize(("head_dim", "value_dim"), [(8, 8), (24, 40), (20, 1), (96, 128)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_vectors_of_many_lengths(dtype: torch.dtype, head_dim: int, value_dim: int) -> None:
    case = Case(batch=1, height=3, width=10, heads=1, head_dim=head_dim, value_dim=value_dim, scale=0.3)
    tensors = case.tensors(dtype)
    assert_close(
        forward("triton", case, dtype).cpu(),
        forward("reference", case, dtype),
        oracle.local_attention(*tensors, **case.options),
    )
    exact = oracle.gradients(case.upstream(dtype), *tensors, **case.options)
    mine = {name: grad.cpu() for name, grad in backward("triton", case, dtype).items()}
    assert_all_close(mine, backward("reference", case, dtype), exact)


@needs_triton
@pytest.mark.parametrize("scale", [-0.5, 0.0])
def test_a_scale_may_be_negative_or_zero(scale: float) -> None:
    case = Case(scale=scale, kernel_size=5)
    exact = oracle.gradients(case.upstream(), *case.tensors(), **case.options)
    exact["out"] = oracle.local_attention(*case.tensors(), **case.options)
    mine = {**backward("triton", case), "out": forward("triton", case)}
    reference = {**backward("reference", case), "out": forward("reference", case)}
    assert_all_close(mine, reference, exact)


@needs_triton
def test_overflowing_logits_are_shared_as_the_reference_shares_them() -> None:
    """The careful way, for a tile where some queries overflow and some do not."""
    case = Case(batch=1, height=5, width=5, heads=1, head_dim=2, tables="none")
    query, key, value, *_ = case.tensors(torch.float32, DEVICE)
    query[:, 0], key[:, :, 1:3] = 3e19, -3e19
    out = local_attention(query, key, value, kernel_size=3, backend="triton")
    expected = local_attention(query, key, value, kernel_size=3, backend="reference")
    torch.testing.assert_close(out, expected)


def far_apart(path: Path, pixels: int, step: int) -> Tensor:
    """Get an image whose rows lie more than 2**31 elements apart, in a file that is nearly all holes."""
    count = (pixels - 1) * step + 64
    with path.open("wb") as file:
        file.truncate(2 * count)
    memory = torch.from_file(str(path), shared=True, size=count, dtype=torch.float16)
    return memory.as_strided((1, pixels, 3, 2, 4), (1, step, 8, 4, 1))


@needs_triton
@pytest.mark.skipif(DEVICE != "cpu", reason="the memory is a file")
def test_offsets_beyond_two_to_the_31(tmp_path: Path) -> None:
    spread = [far_apart(tmp_path / name, 3, 2**30 + 64) for name in "qkv"]
    for tensor in spread:
        tensor.copy_(torch.randn(tensor.shape))
    close = [tensor.clone().contiguous() for tensor in spread]
    out = local_attention(*spread, kernel_size=3, backend="triton")
    assert torch.equal(out, local_attention(*close, kernel_size=3, backend="triton"))


@needs_triton
def test_many_tiles_and_few_heads_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """However the heads are shared out among programs, the result is the same."""
    from lookaround.ops.backends import triton_launch

    case = Case(batch=1, height=9, width=9, heads=3, kernel_size=(3, 5))
    results = []
    for wanted in (1, 4, 10**6):  # three heads, some, one
        monkeypatch.setattr(triton_launch, "PROGRAMS_WANTED", wanted)
        results.append({"out": forward("triton", case), **backward("triton", case)})
    for result in results[1:]:
        for name, tensor in result.items():
            torch.testing.assert_close(tensor, results[0][name])
    one = replace(case, heads=1)
    assert forward("triton", one).shape == (1, 9, 9, 1, 3)
