"""A network with its batch norms folded away, for inference."""

import copy

from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

from lookaround.models.resnet import Bottleneck, ResNet
from lookaround.nn import AttentionStem, ConvStem, LocalAttention2d
from lookaround.nn.fusion import fuse_attention_bn_eval, fuse_stem_eval


def fuse(model: ResNet) -> ResNet:
    """Return a copy that computes the same in eval mode with every batch norm folded into its neighbour.

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
    for block in list(fused.modules()):
        if isinstance(block, Bottleneck):
            _fuse_block(block)
    return fused.requires_grad_(False)


def _fuse_block(block: Bottleneck) -> None:
    block.conv1 = fuse_conv_bn_eval(block.conv1, block.bn1)
    block.conv3 = fuse_conv_bn_eval(block.conv3, block.bn3)
    spatial, shortcut = block.spatial, block.downsample
    if isinstance(spatial, LocalAttention2d):
        block.spatial = fuse_attention_bn_eval(spatial, block.bn2)
    elif isinstance(spatial, nn.Conv2d):
        block.spatial = fuse_conv_bn_eval(spatial, block.bn2)
    if isinstance(shortcut, nn.Sequential):
        conv, bn = shortcut
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(bn, nn.BatchNorm2d)
        block.downsample = fuse_conv_bn_eval(conv, bn)
    for name in ("bn1", "bn2", "bn3"):
        setattr(block, name, nn.Identity())
