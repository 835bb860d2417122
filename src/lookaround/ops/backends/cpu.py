"""The native kernel: C++ with SIMD on torch's own threads, forward and backward, for float32 and bfloat16.

Nothing is loaded or compiled before the first call that asks. The library comes from the wheel, from the
user's cache, or from a compiler at that moment (`cpu_build`); `load` asks ahead of time, as a program must
that only runs exported graphs. The fastest instruction set of the processor is chosen at run time;
`LOOKAROUND_CPU_ISA` or `use_instruction_set` chooses another.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lookaround.errors import BackendError, UnknownNameError, closest, message
from lookaround.ops.backends.base import Backend
from lookaround.ops.call import Call, Inputs, check_pair

ENVIRONMENT_VARIABLE = "LOOKAROUND_CPU_ISA"
DTYPES = (torch.float32, torch.bfloat16)

_lock = threading.Lock()
_answers: list[str] = []  # what `_load` said, once it has


def run(inputs: Inputs, call: Call) -> Tensor:
    """Compute local attention in one native call: batch height width heads value_dim."""
    from lookaround.ops.backends import cpu_ops

    return cpu_ops.attend(*inputs, call.kernel_size, call.dilation, call.scale, call.border)


def run_packed(projected: Tensor, inputs: Inputs, call: Call) -> Tensor:
    """Compute local attention on the maps of one projection, which gets its gradient in one piece."""
    from lookaround.ops.backends import cpu_ops

    options = (call.kernel_size, call.dilation, call.scale, call.border)
    return cpu_ops.attend_packed(projected, *inputs[3:], *options)


def attend_into(
    out: Tensor,
    projected: Tensor,
    arguments: tuple[Any, ...],
    *,
    bias: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """Compute local attention on the maps of a projection into `out`, without gradients.

    Args:
        out: batch height width heads head_dim, contiguous; overwritten.
        projected: batch height width maps heads head_dim; channels or pixels side by side.
        arguments: row_embedding, column_embedding, key_padding_mask, and the options as a dictionary.
        bias: heads*head_dim, float32: added to the output.
        relu: whether a ReLU follows.

    Returns:
        The logarithm of each query's sum of exponentials: batch heads height width.
    """
    from lookaround.ops.backends import cpu_ops

    return cpu_ops.attend_into(out, projected, *_flatten(arguments), bias=bias, relu=relu)


def differentiate_packed(
    gradient: Tensor, projected: Tensor, logsumexp: Tensor, arguments: tuple[Any, ...]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Give the gradients of a projection, in one piece, and of the tables.

    Args:
        gradient: of the output, batch height width heads head_dim.
        projected: as it was attended to.
        logsumexp: what that returned.
        arguments: as those of `attend_into`.
    """
    from lookaround.ops.backends import cpu_ops

    return cpu_ops.differentiate_packed(gradient, projected, logsumexp, *_flatten(arguments))


def _flatten(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Give what the native operators take behind query, key and value."""
    *tensors, options = arguments
    pairs = (check_pair("cpu", name, options[name]) for name in ("kernel_size", "dilation"))
    return *tensors, *pairs, float(options["scale"]), options["border"]


def load() -> None:
    """Load the library now, compiling it if need be.

    Raises:
        BackendError: there is none to load, or it is there and broken.
    """
    reason = _why_unavailable()
    if reason:
        raise BackendError(message("lookaround.ops.backends.cpu.load", "a library must be found", reason))


def is_available() -> bool:
    """Tell whether there is a library, loading or compiling it if need be."""
    return not _why_unavailable()


def instruction_sets() -> dict[str, bool]:
    """Map each compiled instruction set, the slowest first, to whether this processor has it.

    Raises:
        BackendError: the library is not available.
    """
    return {word.rstrip("!?"): "?" not in word for word in _kernels()}


def instruction_set() -> str:
    """Name the instruction set in use.

    Raises:
        BackendError: the library is not available.
    """
    return next(word.rstrip("!?") for word in _kernels() if word.endswith("!"))


@contextmanager
def use_instruction_set(name: str) -> Iterator[None]:
    """Compute with another instruction set inside the block, in all threads: "baseline", "avx2", ...

    Raises:
        UnknownNameError: no kernel was compiled for this name.
        BackendError: the processor does not have it, or the library is not available.
    """
    before = instruction_set()
    _set_instruction_set("use_instruction_set", name)
    try:
        yield
    finally:
        _set_instruction_set("use_instruction_set", before)


def _kernels() -> list[str]:
    load()
    return _listed_kernels()


def _listed_kernels() -> list[str]:
    words: str = torch.ops.lookaround.cpu_kernels()
    return words.split()


def _set_instruction_set(where: str, name: str) -> None:
    sets = {word.rstrip("!?"): "?" not in word for word in _listed_kernels()}
    if name not in sets:
        hint = closest(name, list(sets))
        raise UnknownNameError(message(where, "the instruction set must be compiled", repr(name), hint=hint))
    if not sets[name]:
        hint = f"this processor has {', '.join(known for known, has in sets.items() if has)}."
        must = "the processor must have the instruction set"
        raise BackendError(message(where, must, repr(name), hint=hint))
    torch.ops.lookaround.set_cpu_kernel(name)


def _why_unavailable() -> str:
    """Load the library, once in a process; give the reason why it is not available, or nothing."""
    if not _answers:
        with _lock:
            if not _answers:
                _answers.append(_load())
    return _answers[0]


# Traced graphs take the answer as it is. This is the mark that torch.compiler.assume_constant_result leaves,
# without the second that its import of the compiler costs.
_why_unavailable._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _load() -> str:
    if not _torch_is_new_enough():
        return f"torch {torch.__version__} is too old for the native kernel: it needs 2.10"
    from lookaround.ops.backends import cpu_build, cpu_ops

    found = cpu_build.find_or_build()
    if found.path is None:
        return f"no native kernel: {found.reason}"
    _load_library(found.path)
    cpu_ops.register()
    chosen = os.environ.get(ENVIRONMENT_VARIABLE)
    if chosen is not None and chosen != "":
        _set_instruction_set(ENVIRONMENT_VARIABLE, chosen)
    return ""


def _load_library(path: Path) -> None:
    try:
        torch.ops.load_library(path)
    except (OSError, RuntimeError) as error:
        hint = "delete the file, or install the package anew; backend='blocked' works without it."
        must = "the native library must load"
        raise BackendError(message("local_attention", must, path, lines=[str(error)], hint=hint)) from error


def _torch_is_new_enough() -> bool:
    major, minor = torch.__version__.split(".")[:2]
    return (int(major), int(minor)) >= (2, 10)


def _reasons_against(call: Call) -> list[str]:
    reasons = []
    if call.device.type != "cpu":
        reasons.append(f"the tensors are on {call.device.type}: it runs on the CPU")
    if call.dtype not in DTYPES:
        reasons.append(f"the dtype is {call.dtype}: it computes float32 and bfloat16, `blocked` the others")
    if reasons:
        return reasons  # without loading what could not serve
    missing = _why_unavailable()
    return [missing] if missing else []


BACKEND = Backend(
    "cpu", "native C++ kernel; float32 and bfloat16 on the CPU", run, _reasons_against, run_packed
)
