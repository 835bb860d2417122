"""Contestants that compute the same function must agree before anything is timed."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lookaround.errors import BackendError, message

# Of the largest value: sums of hundreds of terms in another order, and for networks fifty layers of them.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 1e-1, torch.float16: 2e-2}


def check_agreement(
    name: str, actual: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float | None = None
) -> None:
    """Compare outputs (and gradients) of a contestant with those of another.

    Args:
        name: of the contestant.
        actual: its tensors.
        expected: those of the other.
        tolerance: largest difference over the largest value; that of the dtype if not given.

    Raises:
        BackendError: they differ, or are not finite.
    """
    for place, (mine, theirs) in enumerate(zip(actual, expected, strict=True)):
        scale = theirs.abs().max().double().item() if theirs.numel() else 0.0
        error = (mine.double() - theirs.double()).abs().max().item() if theirs.numel() else 0.0
        allowed = (TOLERANCE[mine.dtype] if tolerance is None else tolerance) * scale
        if not error <= allowed:  # a NaN fails too
            got = f"{name} off by {error:.3g} in tensor {place}, at most {allowed:.3g} being allowed"
            raise BackendError(message("bench", "contestants must compute the same before they race", got))
