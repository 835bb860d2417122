"""Stochastic depth."""

import torch
from torch import Tensor, nn

from lookaround.errors import ArgumentError, message


class DropPath(nn.Module):
    """Drops its whole input for some samples of a batch while training, and scales the others up.

    Args:
        probability: share of the samples that are dropped, 0 <= probability < 1.

    Source:
        Huang et al. 2016, Deep Networks with Stochastic Depth.

    Example:
        >>> DropPath(0.5).eval()(torch.ones(3))
        tensor([1., 1., 1.])
    """

    def __init__(self, probability: float = 0.0) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise ArgumentError(message("DropPath", "probability must be in [0, 1)", probability))
        self.probability = probability

    @property
    def active(self) -> bool:
        """Whether it does anything now."""
        return self.training and self.probability > 0

    def forward(self, x: Tensor) -> Tensor:
        """Return `x`, or while training `x` with some samples set to zero."""
        if not self.active:
            return x
        keep = torch.empty(x.shape[0], *[1] * (x.dim() - 1), dtype=x.dtype, device=x.device)
        keep.bernoulli_(1 - self.probability)
        return x * keep / (1 - self.probability)

    def extra_repr(self) -> str:
        """Show the probability."""
        return f"{self.probability}"
