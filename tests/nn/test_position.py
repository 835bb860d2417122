import math

import pytest
import torch

from lookaround.nn.position import sinusoidal_embedding

LIKE = torch.zeros(1)


@pytest.mark.parametrize("channels", [2, 3, 5, 7, 8, 33, 64])
def test_every_position_has_a_vector_of_its_own(channels: int) -> None:
    table = sinusoidal_embedding(20, 25, channels, like=LIKE)
    assert table.shape == (20, 25, channels)
    assert table.flatten(0, 1).unique(dim=0).shape[0] == 20 * 25
    assert table.abs().max() <= 1


def test_one_channel_tells_the_row() -> None:
    table = sinusoidal_embedding(4, 3, 1, like=LIKE)
    torch.testing.assert_close(table, torch.arange(4.0).sin()[:, None, None].expand(4, 3, 1))


@pytest.mark.parametrize("channels", [8, 9])
def test_equals_the_formula(channels: int) -> None:
    """Half for the rows, the larger if odd; sines and cosines by turns, wavelengths from 2π to 10000·2π."""
    table = sinusoidal_embedding(5, 6, channels, like=LIKE)
    half = channels - channels // 2
    for row, column, channel in (
        (0, 0, 0),
        (3, 5, 1),
        (4, 2, 2),
        (2, 3, half),
        (1, 5, half + 1),
        (4, 4, channels - 1),
    ):
        in_rows = channel < half
        position, index = (row, channel) if in_rows else (column, channel - half)
        pairs = ((half if in_rows else channels - half) + 1) // 2
        angle = position / 10_000 ** ((index // 2) / pairs)
        expected = math.cos(angle) if index % 2 else math.sin(angle)
        assert table[row, column, channel].item() == pytest.approx(expected, abs=1e-6)


def test_a_larger_image_begins_with_the_smaller_one() -> None:
    small, large = (sinusoidal_embedding(size, size, 6, like=LIKE) for size in (3, 9))
    assert torch.equal(large[:3, :3], small)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_has_the_dtype_and_device_of_its_like(dtype: torch.dtype) -> None:
    assert sinusoidal_embedding(2, 2, 4, like=torch.zeros(1, dtype=dtype)).dtype == dtype
    assert sinusoidal_embedding(2, 2, 4, like=torch.zeros(1, device="meta")).device.type == "meta"
