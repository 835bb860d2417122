"""Networks of torchvision and timm keep the size of every map when their convolutions give way."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lookaround.nn import LocalAttention2d, replace_convolutions

pytest.importorskip("torchvision")
timm = pytest.importorskip("timm")

from timm.layers import (  # noqa: E402
    BatchNormAct2d,
    Conv2dSame,
    ScaledStdConv2d,
    ScaledStdConv2dSame,
    StdConv2d,
    StdConv2dSame,
)
from timm.models.convnext import ConvNeXt  # noqa: E402
from timm.models.regnet import RegNet as TimmRegNet  # noqa: E402
from timm.models.regnet import RegNetCfg  # noqa: E402
from timm.models.resnetv2 import ResNetV2  # noqa: E402
from torchvision.models import regnet, resnet  # noqa: E402
from torchvision.models._utils import IntermediateLayerGetter  # noqa: E402
from torchvision.models.segmentation.deeplabv3 import ASPP, DeepLabV3  # noqa: E402

ALL_KINDS = {"kinds": ("3x3", "grouped *", "depthwise *")}
ODD_SIZE = (45, 33)


def torchvision_resnet(**options: Any) -> nn.Module:
    return resnet.ResNet(resnet.Bottleneck, [1, 2, 1, 1], num_classes=5, **options)


def torchvision_regnet() -> nn.Module:
    parameters = regnet.BlockParams([1, 1, 2, 1], [16, 32, 48, 64], [8] * 4, [1.0] * 4, [2] * 4, 0.25)
    return regnet.RegNet(parameters, num_classes=5)


def torchvision_deeplabv3() -> nn.Module:
    """Make one with dilated stages, and a narrow head with wide dilations."""
    dilated = [False, True, True]
    whole = resnet.ResNet(resnet.Bottleneck, [1, 1, 2, 1], replace_stride_with_dilation=dilated)
    backbone = IntermediateLayerGetter(whole, {"layer3": "out"})
    head = nn.Sequential(ASPP(1024, [2, 4, 6], 16), nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 5, 1))
    return DeepLabV3(backbone, head)


def timm_resnetv2() -> nn.Module:
    options = {"conv_layer": StdConv2d, "norm_layer": BatchNormAct2d, "stem_type": "same"}
    return ResNetV2([1, 1, 2, 1], [64, 64, 96, 128], num_classes=5, **options)


def timm_regnet() -> nn.Module:
    return TimmRegNet(RegNetCfg(depth=6, w0=16, wa=16.0, wm=2.0, group_size=8, se_ratio=0.25), num_classes=5)


def timm_convnext() -> nn.Module:
    return ConvNeXt(depths=(1, 1, 2, 1), dims=(16, 24, 32, 40), num_classes=5)


def named(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=5, **options)


# Network, options, and how many of its convolutions give way.
FAMILIES: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], int]] = {
    "torchvision resnet": (torchvision_resnet, {}, 5),
    "torchvision resnext": (lambda: torchvision_resnet(groups=32, width_per_group=4), ALL_KINDS, 5),
    "torchvision regnet": (torchvision_regnet, ALL_KINDS, 5),
    "torchvision deeplabv3": (torchvision_deeplabv3, {}, 8),
    "timm resnet": (named("resnet26t", layers=(1, 1, 2, 1), channels=(16, 32, 48, 64)), {}, 7),
    "timm resnetv2": (timm_resnetv2, {}, 5),
    "timm regnet": (timm_regnet, ALL_KINDS, 6),
    "timm darknet": (named("cs3darknet_s"), {}, 14),
    "timm convnext": (timm_convnext, ALL_KINDS, 5),
}


def record_sizes(model: nn.Module) -> dict[str, list[tuple[int, ...]]]:
    """Write down the size of whatever each convolution puts out; the hooks move to what replaces it."""
    sizes: dict[str, list[tuple[int, ...]]] = defaultdict(list)

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda module, inputs, output: sizes[name].append(tuple(output.shape))

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note(name))
    return sizes


@pytest.mark.parametrize(("make", "options", "replaced"), FAMILIES.values(), ids=FAMILIES)
def test_every_map_keeps_its_size(make, options: dict[str, Any], replaced: int) -> None:
    model = make().eval()
    sizes = record_sizes(model)
    images = torch.randn(1, 3, *ODD_SIZE)
    with torch.no_grad():
        model(images)
        report = replace_convolutions(model, kernel_size=3, num_heads=4, **options)
        out = model(images)
    out = out["out"] if isinstance(out, dict) else out
    assert len(report.replaced) == replaced
    assert sum(isinstance(module, LocalAttention2d) for module in model.modules()) == replaced
    assert {name: len(found) for name, found in sizes.items() if len(found) != 2} == {}
    assert {name: found for name, found in sizes.items() if found[0] != found[1]} == {}
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("size", [(4, 7), (5, 8)])
@pytest.mark.parametrize("kind", [StdConv2d, StdConv2dSame, ScaledStdConv2d, ScaledStdConv2dSame, Conv2dSame])
def test_convolutions_of_timm_keep_their_geometry(kind: type[nn.Conv2d], size: tuple[int, int]) -> None:
    convolution = kind(8, 8, 3, stride=2, bias=True)
    model = nn.Sequential(convolution)
    x = torch.randn(1, 8, *size)
    report = replace_convolutions(model, kernel_size=3, num_heads=2)
    assert report.replaced_names == ["0"]
    assert model(x).shape == convolution(x).shape


def test_static_padding_by_a_class_for_any_padding() -> None:
    convolution = ScaledStdConv2dSame(8, 8, 3, padding="valid")
    report = replace_convolutions(nn.Sequential(convolution), kernel_size=3, num_heads=2)
    assert "is not half of what its window spans" in report.left[0].reasons[0]


def test_a_converted_network_trains() -> None:
    model = timm_convnext().train()
    replace_convolutions(model, (3, 4), kernel_size=3, num_heads=4, **ALL_KINDS)
    model(torch.randn(2, 3, 32, 32)).square().mean().backward()
    layers = [module for module in model.modules() if isinstance(module, LocalAttention2d)]
    assert len(layers) == 3
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for m in layers for p in m.parameters())


def test_what_reads_a_convolution_reads_the_attention() -> None:
    model = named("cs3darknet_s")()
    wrapper = model.get_submodule("stages.0.conv_down")  # reads its convolution's channels
    before = (wrapper.in_channels, wrapper.out_channels, wrapper.conv.weight.dtype, wrapper.conv.stride)
    replace_convolutions(model, "stages.0", num_heads=4)
    assert isinstance(wrapper.conv, LocalAttention2d)
    assert (
        wrapper.in_channels,
        wrapper.out_channels,
        wrapper.conv.weight.dtype,
        wrapper.conv.stride,
    ) == before
    assert not wrapper.conv.weight.requires_grad
