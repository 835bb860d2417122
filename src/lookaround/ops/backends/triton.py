"""The GPU kernel, written in Triton: forward and backward, for float32, bfloat16 and float16.

Nothing of Triton is imported before the first call with tensors on a GPU. With `TRITON_INTERPRET=1` in the
environment before that, Triton interprets the kernels on the CPU: slowly, for tests.
"""

import importlib.util
import os

import torch
from torch import Tensor

from lookaround.ops.backends.base import Backend
from lookaround.ops.call import Call, Inputs

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LARGEST_VECTOR = 128  # head_dim and value_dim; beyond, registers overflow
LARGEST_KERNEL = 121  # with its halo, a tile's line of keys is then 128 wide
OLDEST_CAPABILITY = (8, 0)  # Ampere; bfloat16 needs it


def run(inputs: Inputs, call: Call) -> Tensor:
    """Compute local attention in one kernel: batch height width heads value_dim."""
    from lookaround.ops.backends import triton_ops

    return triton_ops.attend(*inputs, call.kernel_size, call.dilation, call.scale, call.border)


def run_packed(projected: Tensor, inputs: Inputs, call: Call) -> Tensor:
    """Compute local attention on the maps of one projection, which gets its gradient in one piece."""
    from lookaround.ops.backends import triton_ops

    options = (call.kernel_size, call.dilation, call.scale, call.border)
    return triton_ops.attend_packed(projected, *inputs[3:], *options)


def is_interpreted() -> bool:
    """Tell whether Triton is asked to interpret kernels on the CPU."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")


def _why_unavailable(device_type: str, index: int | None) -> str:
    """Import Triton and register the operators; give the reason why that cannot be, or nothing."""
    if device_type == "cpu" and not is_interpreted():
        return "the tensors are on the CPU: it runs on a GPU, and on the CPU only with TRITON_INTERPRET=1"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if device_type == "cuda":
        if is_interpreted():
            return "TRITON_INTERPRET is set: the interpreter computes tensors on the CPU"
        capability = torch.cuda.get_device_capability(index)
        if torch.version.hip is None and capability < OLDEST_CAPABILITY:
            found = ".".join(map(str, capability))
            return f"the GPU has compute capability {found}: it needs 8.0"
    from lookaround.ops.backends import triton_ops

    triton_ops.register()
    return ""


# Traced graphs take the answer as it is, as in `cpu`.
_why_unavailable._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _reasons_against(call: Call) -> list[str]:
    reasons = []
    if call.device.type not in ("cuda", "cpu"):
        reasons.append(f"the tensors are on {call.device.type}: it runs on a GPU")
    if call.dtype not in DTYPES:
        reasons.append(f"the dtype is {call.dtype}: it computes float32, bfloat16 and float16")
    if max(call.head_dim, call.value_dim) > LARGEST_VECTOR:
        sizes = f"head_dim is {call.head_dim} and value_dim {call.value_dim}"
        reasons.append(f"{sizes}: both may be at most {LARGEST_VECTOR}")
    if max(call.kernel_size) > LARGEST_KERNEL:
        reasons.append(f"kernel_size is {call.kernel_size}: it may be at most {LARGEST_KERNEL}")
    if reasons:
        return reasons  # without importing what could not serve
    missing = _why_unavailable(call.device.type, call.device.index)
    return [missing] if missing else []


BACKEND = Backend(
    "triton", "GPU kernel; float32, bfloat16 and float16 on CUDA devices", run, _reasons_against, run_packed
)
