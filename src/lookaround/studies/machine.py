"""What this machine can do at best: the rate of a square matrix product, by the library that torch uses."""

import torch

from lookaround.studies.timing import Work


def matrix_product(side: int, device: torch.device, dtype: torch.dtype) -> tuple[Work, int]:
    """Return a product of two square matrices as work to time, and its FLOPs.

    Args:
        side: rows and columns; large enough that the rate has stopped growing.
        device: where.
        dtype: float32 is computed in float32 (no TensorFloat-32 unless torch was told so).
    """
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(left)

    def multiply() -> None:
        torch.mm(left, right, out=out)

    return multiply, 2 * side**3
