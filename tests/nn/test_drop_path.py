import math

import pytest
import torch

from lookaround.errors import ArgumentError
from lookaround.nn import DropPath


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_drops_whole_samples_as_often_as_asked_and_keeps_the_mean(probability: float) -> None:
    samples = 4000
    out = DropPath(probability)(torch.ones(samples, 2, 3, 3))
    first = out[:, 0, 0, 0]
    assert torch.equal(out, first[:, None, None, None].expand_as(out))  # all of a sample, or nothing
    kept = first != 0
    torch.testing.assert_close(first[kept], torch.full_like(first[kept], 1 / (1 - probability)))
    four_deviations = 4 * math.sqrt(probability * (1 - probability) / samples)
    assert kept.float().mean().item() == pytest.approx(1 - probability, abs=four_deviations)


def test_gradients_flow_through_the_samples_that_are_kept_alone() -> None:
    x = torch.ones(64, 4, requires_grad=True)
    out = DropPath(0.5)(x)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())
    assert 0 < torch.count_nonzero(x.grad[:, 0]) < 64


@pytest.mark.parametrize("layer", [DropPath(), DropPath(0.0), DropPath(0.7).eval()])
def test_changes_nothing_when_not_training_or_never_dropping(layer: DropPath) -> None:
    x = torch.randn(3, 2)
    assert layer(x) is x


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_keeps_the_dtype_and_takes_an_empty_batch(dtype: torch.dtype) -> None:
    assert DropPath(0.5)(torch.ones(5, 2, dtype=dtype)).dtype == dtype
    assert DropPath(0.5)(torch.ones(0, 2, dtype=dtype)).shape == (0, 2)


@pytest.mark.parametrize("probability", [1.0, 1.5, -0.1, float("nan")])
def test_probabilities_that_cannot_be_used_are_named(probability: float) -> None:
    with pytest.raises(
        ArgumentError, match=rf"DropPath: probability must be in \[0, 1\); got {probability}\."
    ):
        DropPath(probability)


def test_the_representation_shows_the_probability() -> None:
    assert repr(DropPath(0.25)) == "DropPath(0.25)"
