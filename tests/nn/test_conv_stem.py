import pytest
import torch
from torch import nn

from lookaround.errors import ArgumentError, ShapeError
from lookaround.nn import ConvStem


def torchvision_stem() -> nn.Sequential:
    from torchvision.models import resnet18

    network = resnet18()
    return nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)


@pytest.mark.parametrize("size", [(64, 64), (45, 61), (7, 8), (1, 1)])
def test_equals_that_of_torchvision(size: tuple[int, int]) -> None:
    theirs, mine = torchvision_stem().eval(), ConvStem().eval()
    mine.conv.load_state_dict(theirs[0].state_dict())
    x = torch.randn(2, 3, *size)
    out = mine(x)
    assert out.shape == (2, 64, -(-size[0] // 4), -(-size[1] // 4))
    torch.testing.assert_close(out, theirs(x))


def test_the_small_form_keeps_the_size() -> None:
    stem = ConvStem(1, 8, kernel_size=3, stride=1, pool=1)
    assert stem(torch.randn(2, 1, 28, 9)).shape == (2, 8, 28, 9)


def test_the_names_of_the_state_are_these() -> None:
    norm = [f"bn.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]
    assert sorted(ConvStem().state_dict()) == sorted(["conv.weight", *norm])


@pytest.mark.parametrize(
    "options", [{"kernel_size": 4}, {"kernel_size": 0}, {"stride": 0}, {"in_channels": -1}]
)
def test_options_that_cannot_be_used_are_named(options: dict) -> None:
    with pytest.raises(
        ArgumentError, match="ConvStem: sizes must be >= 1 and kernel_size must be odd; got kernel"
    ):
        ConvStem(**options)


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8)])
def test_an_input_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"ConvStem: x must have the shape \(batch, 3, height, width\)"):
        ConvStem()(torch.zeros(shape))
