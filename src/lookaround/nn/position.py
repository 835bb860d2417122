"""Absolute positions: a fixed sinusoid in two dimensions."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def sinusoidal_embedding(
    height: int, width: int, channels: int, *, like: Tensor
) -> Float[Tensor, "height width channels"]:
    """Give every pixel a vector of sines and cosines of its row and its column.

    The first half of the channels tells the row, the second the column, each with wavelengths that grow
    geometrically from 2π to 10000·2π pixels. It depends on nothing but the position, so that any image size
    works and no size is stored.

    Args:
        height: rows.
        width: columns.
        channels: length of each vector, any number >= 1.
        like: a tensor whose dtype and device the result has.

    Source:
        Vaswani et al. 2017, section 3.5, for one dimension; the paper names no two-dimensional form.

    Example:
        >>> sinusoidal_embedding(2, 3, 8, like=torch.zeros(1)).shape
        torch.Size([2, 3, 8])
    """
    rows = _waves(height, channels - channels // 2, like.device)
    columns = _waves(width, channels // 2, like.device)
    both = torch.cat([rows[:, None].expand(-1, width, -1), columns.expand(height, -1, -1)], dim=-1)
    return both.to(like.dtype)


def _waves(size: int, channels: int, device: torch.device) -> Tensor:
    positions = torch.arange(size, device=device, dtype=torch.float32)
    pairs = (channels + 1) // 2
    exponents = torch.arange(pairs, device=device, dtype=torch.float32) / max(pairs, 1)
    angles = positions[:, None] * torch.exp(-math.log(10_000.0) * exponents)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)[:, :channels]
