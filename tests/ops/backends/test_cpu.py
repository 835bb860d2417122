"""The native kernel's binding: what is registered, threads, instruction sets, and reasons."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import oracle
from backends_under_test import backward, forward, skip_unless_runs
from closeness import assert_all_close, assert_close
from lookaround.errors import BackendError, UnknownNameError, UnsupportedCallError
from lookaround.ops import explain_backends, local_attention
from lookaround.ops.backends import cpu, cpu_build
from lookaround.ops.call import Inputs, check_call
from lookaround.ops.cost import backward_flops, call_cost
from strategies import HURTFUL, Case

# More tasks than threads, sizes that fill no vector, enough work for every thread to get a share.
LARGE = Case(batch=3, height=19, width=21, heads=3, head_dim=8, value_dim=8, kernel_size=5, padding=0.1)
CASES = {
    "plain": Case(),
    "everything": HURTFUL["everything"],
    "zeros_position_only": HURTFUL["position_only_zeros"],
    "no_tables": Case(tables="none"),
}
EVERY_CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@pytest.fixture(autouse=True)
def _available() -> None:
    skip_unless_runs("cpu", Case())


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def arguments(case: Case, dtype: torch.dtype = torch.float32, gradients: bool = True) -> tuple:
    *floats, mask = case.tensors(dtype)
    leaves = [None if t is None else t.detach().requires_grad_(gradients) for t in floats]
    call = check_call("test", Inputs(*leaves, mask), **case.options)
    return (*leaves, mask, call.kernel_size, call.dilation, call.scale, call.border)


@EVERY_CASE
def test_opcheck_of_the_forward_operator(case: Case) -> None:
    torch.library.opcheck(torch.ops.lookaround.local_attention_forward.default, arguments(case))


@EVERY_CASE
@pytest.mark.parametrize("dtype", cpu.DTYPES, ids=str)
def test_opcheck_of_the_backward_operator(case: Case, dtype: torch.dtype) -> None:
    given = arguments(case, dtype, gradients=False)
    _, logsumexp = torch.ops.lookaround.local_attention_forward(*given)
    given = (case.upstream(dtype), *given[:6], logsumexp, *given[6:])
    torch.library.opcheck(torch.ops.lookaround.local_attention_backward.default, given)


def test_fake_tensors_have_the_shapes_dtypes_and_strides_of_real_ones() -> None:
    given = arguments(Case(layout="channels_last_view"), torch.bfloat16, gradients=False)
    real = torch.ops.lookaround.local_attention_forward(*given)
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
        faked = [mode.from_tensor(item) if isinstance(item, Tensor) else item for item in given]
        fake = torch.ops.lookaround.local_attention_forward(*faked)
    for mine, theirs in zip(fake, real, strict=True):
        assert (mine.shape, mine.dtype, mine.stride()) == (theirs.shape, theirs.dtype, theirs.stride())


@EVERY_CASE
def test_flops_are_counted_as_executed(case: Case) -> None:
    *floats, mask = arguments(case)[:6]
    call = check_call("test", Inputs(*floats, mask), **case.options)
    with FlopCounterMode(display=False) as forward_counter:
        out = local_attention(*floats, mask, **case.options, backend="cpu")
    with FlopCounterMode(display=False) as backward_counter:
        out.sum().backward()
    assert forward_counter.get_total_flops() == call_cost(call).executed_flops
    assert backward_counter.get_total_flops() == backward_flops(call)


def test_second_derivatives_are_refused() -> None:
    leaves = [t.requires_grad_() for t in Case().tensors()[:5]]
    out = local_attention(*leaves, **Case().options, backend="cpu")
    first = torch.autograd.grad(out.square().sum(), leaves, create_graph=True)
    with pytest.raises(UnsupportedCallError, match=r"first derivatives only.*\n.*backend='reference'"):
        torch.autograd.grad(first[0].square().sum(), leaves)


def test_frozen_inputs_get_no_gradient_and_no_graph() -> None:
    query, key, value, *_ = Case().tensors()
    out = local_attention(query, key, value.requires_grad_(), kernel_size=3, backend="cpu")
    out.sum().backward()
    assert value.grad is not None
    assert query.grad is key.grad is None
    with torch.no_grad():
        assert local_attention(query, key, value, kernel_size=3, backend="cpu").grad_fn is None


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("dtype", cpu.DTYPES, ids=str)
def test_the_same_bits_for_any_number_of_threads(dtype: torch.dtype) -> None:
    case = replace(LARGE, row_per_head=True)
    with_two = {"out": forward("cpu", case, dtype), **backward("cpu", case, dtype)}
    torch.set_num_threads(1)
    with_one = {"out": forward("cpu", case, dtype), **backward("cpu", case, dtype)}
    for name, tensor in with_one.items():
        assert torch.equal(tensor, with_two[name]), name


@pytest.mark.usefixtures("two_threads")
def test_python_threads_may_call_at_once() -> None:
    cases = [replace(LARGE, seed=seed, border=("mask", "zeros")[seed % 2]) for seed in range(8)]
    expected = [(forward("cpu", case), backward("cpu", case)) for case in cases]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda case: (forward("cpu", case), backward("cpu", case)), cases))
    for (out, grads), (expected_out, expected_grads) in zip(results, expected, strict=True):
        assert torch.equal(out, expected_out)
        assert all(torch.equal(grads[name], expected_grads[name]) for name in grads)


def test_the_interpreter_runs_on_while_the_kernel_does() -> None:
    """A second thread counts while the first is inside the kernel: the lock of the interpreter is free."""
    case = Case(
        batch=8, height=64, width=64, heads=8, head_dim=32, value_dim=32, kernel_size=15, tables="none"
    )
    query, key, value, *_ = case.tensors()
    counted, done = [0], threading.Event()

    def count() -> None:
        while not done.wait(0.001):
            counted[0] += 1

    counter = threading.Thread(target=count)
    counter.start()
    before = counted[0]
    with torch.no_grad():
        torch.ops.lookaround.local_attention_forward(
            query, key, value, None, None, None, (15, 15), (1, 1), 1.0, "mask"
        )
    during = counted[0] - before
    done.set()
    counter.join()
    assert during >= 3


@pytest.mark.parametrize("dtype", cpu.DTYPES, ids=str)
@pytest.mark.parametrize("name", cpu_build.instruction_sets())
def test_every_instruction_set_is_close_to_the_truth(name: str, dtype: torch.dtype) -> None:
    if not cpu.instruction_sets()[name]:
        pytest.skip(f"this processor has no {name}")
    for case in (*CASES.values(), replace(LARGE, batch=1, heads=1)):
        tensors = case.tensors(dtype)
        with cpu.use_instruction_set(name):
            assert cpu.instruction_set() == name
            out, grads = forward("cpu", case, dtype), backward("cpu", case, dtype)
        exact = oracle.local_attention(*tensors, **case.options)
        assert_close(out, forward("reference", case, dtype), exact)
        exact_grads = oracle.gradients(case.upstream(dtype), *tensors, **case.options)
        assert_all_close(grads, backward("reference", case, dtype), exact_grads)


def test_the_fastest_instruction_set_is_chosen() -> None:
    supported = [name for name, has in cpu.instruction_sets().items() if has]
    assert cpu.instruction_set() == supported[-1]


def test_the_instruction_set_comes_back_after_an_error() -> None:
    before = cpu.instruction_set()
    inside = []

    def fail_inside() -> None:
        with cpu.use_instruction_set("baseline"):
            inside.append(cpu.instruction_set())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert inside == ["baseline"]
    assert cpu.instruction_set() == before


def test_unknown_and_missing_instruction_sets_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match=r"must be compiled; got 'avx3'.*\n.*Known: baseline"):
        cpu.use_instruction_set("avx3").__enter__()
    monkeypatch.setattr(cpu, "_listed_kernels", lambda: ["baseline!", "sse9?"])
    with pytest.raises(
        BackendError, match=r"the processor must have .* got 'sse9'.*\n.*this processor has baseline\."
    ):
        cpu.use_instruction_set("sse9").__enter__()


@pytest.mark.parametrize("layout", ["channels_last_view", "sliced", "expanded"])
def test_inputs_are_read_where_they_lie(layout: str) -> None:
    case = replace(LARGE, layout=layout)
    contiguous = [t if t is None else t.contiguous() for t in case.tensors()]
    expected = local_attention(*contiguous, **case.options, backend="cpu")
    assert torch.equal(forward("cpu", case), expected)


def test_slices_of_one_projection_are_not_copied() -> None:
    maps = torch.randn(2, 9, 10, 3, 4, 8, requires_grad=True)
    row = torch.randn(7, 4, requires_grad=True)

    def attend() -> None:
        query, key, value = maps.unbind(-3)
        out = local_attention(query, key, value, row, row, kernel_size=7, backend="cpu")
        out.backward(torch.ones(out.shape))

    attend()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        attend()
    called = {event.key for event in profiled.key_averages()}
    assert "lookaround::local_attention_forward" in called
    assert not called & {"aten::clone", "aten::contiguous", "aten::_to_copy", "aten::copy_"} - {
        "aten::contiguous"
    }


def test_a_direct_call_of_the_operator_stays_inside_its_memory() -> None:
    given = arguments(Case(), gradients=False)
    forward_op = torch.ops.lookaround.local_attention_forward
    for place, wrong, match in [
        (1, given[1][:, :-1], "key must"),
        (2, given[2].double(), "value must"),
        (3, given[3][1:], "row_embedding must"),
        (5, torch.zeros(1, 1, 1, dtype=torch.bool), "key_padding_mask must"),
        (6, (2, 3), "kernel_size must be odd"),
        (7, (0, 1), "at least 1"),
        (9, "wrap", "border must be"),
    ]:
        with pytest.raises(RuntimeError, match=match):
            forward_op(*given[:place], wrong, *given[place + 1 :])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16], ids=str)
def test_other_dtypes_have_a_reason_and_blocked_serves_them(dtype: torch.dtype) -> None:
    tensors = Case().tensors(dtype)
    reasons = explain_backends(*tensors, **Case().options)["cpu"]
    assert reasons == [f"the dtype is {dtype}: it computes float32 and bfloat16, `blocked` the others"]
    with pytest.raises(UnsupportedCallError, match="it computes float32 and bfloat16"):
        local_attention(*tensors, **Case().options, backend="cpu")


def test_other_devices_have_a_reason() -> None:
    reasons = explain_backends(*Case().tensors(device="meta"), **Case().options)["cpu"]
    assert reasons == ["the tensors are on meta: it runs on the CPU"]


def test_an_old_torch_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.9.1")
    assert cpu._load() == "torch 2.9.1 is too old for the native kernel: it needs 2.10"
