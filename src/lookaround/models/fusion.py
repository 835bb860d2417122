"""A network with its batch norms folded away, for inference."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from lookaround.models.resnet import Bottleneck, ResNet
from lookaround.nn import AttentionStem, ConvStem, LocalAttention2d
from lookaround.nn.fusion import FusedConv2d, fuse_attention_bn_eval, fuse_stem_eval


def fuse(model: ResNet) -> ResNet:
    """Return a copy for inference that computes the same: batch norms folded away, ReLUs in the convolutions.

    Args:
        model: a network in eval mode; it is not changed.

    Raises:
        ArgumentError: the network is in training mode.

    Example:
        >>> import lookaround
        >>> model = lookaround.create_model("sasa_resnet14_small", width=0.25).eval()
        >>> any(isinstance(module, nn.BatchNorm2d) for module in fuse(model).modules())
        False
    """
    fused = copy.deepcopy(model)
    stem = fused.stem
    assert isinstance(stem, (ConvStem, AttentionStem))
    fused.stem = fuse_stem_eval(stem)
    for name in ("layer1", "layer2", "layer3", "layer4"):
        blocks = (FusedBottleneck(block) for block in getattr(fused, name))
        setattr(fused, name, nn.Sequential(*blocks))
    return fused.requires_grad_(False).to(memory_format=torch.channels_last)


class FusedBottleneck(nn.Module):
    """A bottleneck block in eval mode without batch norms: every convolution ends in its ReLU.

    Args:
        block: the block whose weights it takes over, in eval mode.
    """

    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        self.conv1 = FusedConv2d(fuse_conv_bn_eval(block.conv1, block.bn1))
        self.conv3 = FusedConv2d(fuse_conv_bn_eval(block.conv3, block.bn3))
        spatial, shortcut = block.spatial, block.downsample
        if isinstance(spatial, LocalAttention2d):
            self.spatial: nn.Module = fuse_attention_bn_eval(spatial, block.bn2, relu=True)
        else:
            assert isinstance(spatial, nn.Conv2d)
            self.spatial = FusedConv2d(fuse_conv_bn_eval(spatial, block.bn2))
        self.downsample: nn.Module | None = None
        if isinstance(shortcut, nn.Sequential):
            conv, bn = shortcut
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(bn, nn.BatchNorm2d)
            self.downsample = FusedConv2d(fuse_conv_bn_eval(conv, bn), relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the block would; `x` may be overwritten."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.conv3(self.spatial(self.conv1(x)), shortcut)
        return out
