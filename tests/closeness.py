"""The one tolerance rule, for every backend, dtype and tensor; it is never tuned for a test.

    error(backend) <= 2 * error(reference) + eps(dtype) * max|exact|

Errors are largest absolute differences from the float64 oracle, so a backend may be twice as wrong as the
plain equation is in the same dtype, plus

    eps(dtype) = 32 * (machine epsilon of the computing dtype) + (machine epsilon of the dtype)

The first term is a few roundings of accumulation, and float16 and bfloat16 compute in float32; the second is
the one rounding of the result to its dtype. The gradients of one call share one max|exact|, for the gradient
of a query whose window is a single pixel is exactly zero and leaves nothing to be relative to.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

COMPUTING = {
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float32: torch.float32,
    torch.float64: torch.float64,
}


def eps(dtype: torch.dtype) -> float:
    """Give the relative slack that a dtype is allowed."""
    return 32 * torch.finfo(COMPUTING[dtype]).eps + torch.finfo(dtype).eps


def largest(tensor: Tensor) -> float:
    """Give the largest magnitude, 0 for an empty tensor; NaN if there is one."""
    return tensor.detach().abs().max().item() if tensor.numel() else 0.0


def error(actual: Tensor, exact: Tensor) -> float:
    """Give the largest absolute difference from the exact result, in float64."""
    assert actual.shape == exact.shape, f"shape {tuple(actual.shape)} instead of {tuple(exact.shape)}"
    return largest(actual.detach().cpu().double() - exact.cpu())


def assert_close(actual: Tensor, reference: Tensor, exact: Tensor, *, name: str = "out") -> None:
    """Apply the rule to one tensor."""
    assert_all_close({name: actual}, {name: reference}, {name: exact})


def assert_all_close(
    actual: Mapping[str, Tensor], reference: Mapping[str, Tensor], exact: Mapping[str, Tensor]
) -> None:
    """Apply the rule to tensors that share one scale, such as the gradients of one call."""
    assert actual.keys() == exact.keys()
    scale = max((largest(tensor) for tensor in exact.values()), default=0.0)
    for name, tensor in actual.items():
        assert tensor.dtype == reference[name].dtype, f"{name}: {tensor.dtype} != {reference[name].dtype}"
        mine, theirs = error(tensor, exact[name]), error(reference[name], exact[name])
        allowed = 2 * theirs + eps(tensor.dtype) * scale
        # Written so that a NaN on either side fails.
        assert mine <= allowed, f"{name}: error {mine:.3e} > {allowed:.3e}; the reference's is {theirs:.3e}"


def assert_all_exact_enough(reference: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> None:
    """Hold the reference itself to the oracle: four times the slack that the rule adds for everyone else."""
    assert reference.keys() == exact.keys()
    scale = max((largest(tensor) for tensor in exact.values()), default=0.0)
    for name, tensor in reference.items():
        wrong, allowed = error(tensor, exact[name]), 4 * eps(tensor.dtype) * scale
        assert wrong <= allowed, f"reference {name}: error {wrong:.3e} > {allowed:.3e} (scale {scale:.3e})"
