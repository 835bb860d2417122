"""What only a GPU can show: streams, graphs, several devices, tf32, memory, and no waiting for the device."""

import pytest
import torch

from closeness import assert_all_close
from lookaround.ops import local_attention
from strategies import Case

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CASE = Case(batch=2, height=24, width=20, heads=4, head_dim=16, value_dim=16, kernel_size=7)
NAMES = ("out", "query", "key", "value", "row_embedding", "column_embedding")
Tensors = list[torch.Tensor]


def attend(*tensors: torch.Tensor | None) -> torch.Tensor:
    return local_attention(*tensors, **CASE.options, backend="triton")


def test_another_stream() -> None:
    tensors = CASE.tensors(torch.bfloat16, "cuda")
    expected = attend(*tensors)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        out = attend(*tensors)
    torch.cuda.current_stream().wait_stream(stream)
    assert torch.equal(out, expected)


def test_a_graph_replays_forward_and_backward() -> None:
    *floats, _ = CASE.tensors(torch.bfloat16, "cuda")
    leaves = [t.requires_grad_() for t in floats]
    upstream = CASE.upstream(torch.bfloat16, "cuda")

    def step() -> tuple[torch.Tensor, ...]:
        out = attend(*leaves)
        return out, *torch.autograd.grad(out, leaves, upstream)

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        leaves[0].mul_(-1)
    graph.replay()
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(captured, step(), strict=True))


def test_nothing_waits_for_the_device() -> None:
    """Forward and backward only queue work: in this mode torch raises where the host would wait for it."""
    exact = forward_and_backward("reference", torch.float64, "cpu")
    expected = forward_and_backward("reference", torch.float32, "cuda")
    forward_and_backward("triton", torch.float32, "cuda")  # compiles
    leaves, upstream = leaves_and_upstream(torch.float32, "cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="called a synchronizing CUDA operation"):
            upstream.sum().item()
        found = outputs("triton", leaves, upstream)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_all_close(found, expected, exact)


def forward_and_backward(backend: str, dtype: torch.dtype, device: str) -> dict[str, torch.Tensor]:
    return outputs(backend, *leaves_and_upstream(dtype, device))


def leaves_and_upstream(dtype: torch.dtype, device: str) -> tuple[Tensors, torch.Tensor]:
    leaves = [t.requires_grad_() for t in CASE.tensors(dtype, device) if t is not None]
    return leaves, CASE.upstream(dtype, device)


def outputs(backend: str, leaves: Tensors, upstream: torch.Tensor) -> dict[str, torch.Tensor]:
    out = local_attention(*leaves, **CASE.options, backend=backend)
    return dict(zip(NAMES, [out, *torch.autograd.grad(out, leaves, upstream)], strict=True))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_tensors_on_a_device_that_is_not_the_current_one() -> None:
    tensors = CASE.tensors(torch.float32, "cuda:1")
    assert torch.equal(attend(*tensors).cpu(), attend(*CASE.tensors(torch.float32, "cuda:0")).cpu())


def test_float32_is_float32_unless_torch_allows_tf32() -> None:
    tensors = CASE.tensors(torch.float32, "cuda")
    exact = local_attention(*CASE.tensors(torch.float64), **CASE.options, backend="blocked")
    plain = (attend(*tensors).cpu() - exact).abs().max()
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        rounded = (attend(*tensors).cpu() - exact).abs().max()
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
    assert plain < 1e-5 < rounded


def test_no_window_sized_tensor_is_held() -> None:
    """Forward and backward hold less than a dozen copies of the image, where a window has 49 pixels."""
    case = Case(batch=8, height=56, width=56, heads=8, head_dim=8, value_dim=8, kernel_size=7)
    leaves = [t.requires_grad_() for t in case.tensors(torch.bfloat16, "cuda")[:5]]
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    out = local_attention(*leaves, **case.options, backend="triton")
    torch.autograd.grad(out, leaves, torch.ones_like(out))
    held = torch.cuda.max_memory_allocated() - before
    assert held < 12 * leaves[0].numel() * leaves[0].element_size()
