"""The ResNets: one architecture, convolving or attending."""

import math
from functools import partial

from jaxtyping import Bool, Float
from torch import Tensor, nn

from lookaround.models.config import ResNetConfig
from lookaround.models.padding import Mask, apply_spatial, apply_stem, shrink_mask
from lookaround.nn import AttentionStem, ConvStem, DropPath, LocalAttention2d
from lookaround.nn.batch_norm import normalize_add, normalize_then
from lookaround.nn.pointwise import PointwiseConv2d
from lookaround.nn.tracing import as_one_node, is_traced

EXPANSION = 4  # output channels of a bottleneck block over its inner channels


class ResNet(nn.Module):
    """A bottleneck ResNet whose 3x3 convolutions may be local attention.

    Args:
        config: what it is made of; `lookaround.create_model` makes one from a name.

    Source:
        He et al. 2015 for the frame, with the stride in the spatial layer of a block; Ramachandran et al.
        2019, section 3 for the attention in it.

    Departures from the paper:
        The last batch norm of each block starts at zero, so that each block starts as the identity.
    """

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.channels(64)
        self.stem = _make_stem(config, channels)
        blocks, total, stages = 0, sum(config.depths), []
        for stage, depth in enumerate(config.depths, start=1):
            inner = config.channels(64 * 2 ** (stage - 1))
            layer = nn.Sequential()
            for index in range(depth):
                stride = 2 if stage > 1 and index == 0 else 1
                drop = config.drop_path * blocks / max(total - 1, 1)
                attend = config.attends(stage, index)
                layer.append(Bottleneck(channels, inner, stride, attend, drop, config))
                channels = inner * EXPANSION
                blocks += 1
            stages.append(layer)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, config.num_classes)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = config.batch_norm_momentum

    def features(
        self,
        images: Float[Tensor, "batch channels height width"],
        key_padding_mask: Bool[Tensor, "batch height width"] | None = None,
    ) -> dict[str, Tensor]:
        """Return what the stem and every stage put out, by name: stem, layer1, layer2, layer3, layer4.

        Args:
            images: a batch; where images differ in size, each stands at its top left.
            key_padding_mask: True for pixels that are no part of an image. No spatial layer sees them, and
                what the maps hold in their places has no meaning.
        """
        out, mask = apply_stem(self.stem, images, key_padding_mask)
        named = {"stem": out}
        for name in ("layer1", "layer2", "layer3", "layer4"):
            stage = getattr(self, name)
            if mask is None:  # as a whole: a fused stage has blocks that take no mask
                out = stage(out)
            else:
                for block in stage:
                    out = block(out, mask)
                    mask = shrink_mask(mask, block.spatial.stride)
            named[name] = out
        return named

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch num_classes"]:
        """Return the logits of the classes."""
        out = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(images)))))
        logits: Tensor = self.fc(self.avgpool(out).flatten(1))
        return logits


class Bottleneck(nn.Module):
    """1x1 convolution, spatial layer, 1x1 convolution, and a shortcut around them.

    Args:
        in_channels: channels of the input.
        inner_channels: channels of the spatial layer; the output has four times as many.
        stride: of the spatial layer, and of the shortcut.
        attend: whether the spatial layer is local attention or a 3x3 convolution.
        drop_path: probability of skipping everything but the shortcut.
        config: the options of the attention.
    """

    def __init__(  # a block is told its place by its stage
        self,
        in_channels: int,
        inner_channels: int,
        stride: int,
        attend: bool,
        drop_path: float,
        config: ResNetConfig,
    ) -> None:
        super().__init__()
        out_channels = inner_channels * EXPANSION
        self.conv1 = PointwiseConv2d(in_channels, inner_channels)
        self.bn1 = nn.BatchNorm2d(inner_channels)
        self.spatial = _make_spatial(inner_channels, stride, attend, config)
        self.bn2 = nn.BatchNorm2d(inner_channels)
        self.conv3 = PointwiseConv2d(inner_channels, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.drop_path = DropPath(drop_path)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            shortcut = PointwiseConv2d(in_channels, out_channels, stride)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(out_channels))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.bn3.weight)

    def forward(self, x: Tensor, key_padding_mask: Mask = None) -> Tensor:
        """Return batch 4·inner_channels ceil(height / stride) ceil(width / stride)."""
        if is_traced(x):
            return as_one_node(self, x, key_padding_mask)
        attend = partial(apply_spatial, self.spatial, mask=key_padding_mask)
        out = normalize_then(self.bn1, self.relu, attend, self.conv1(x))
        out = normalize_then(self.bn2, self.relu, self.conv3, out)
        shortcut = self.downsample(x)
        if self.drop_path.active:
            summed: Tensor = self.relu(self.drop_path(self.bn3(out)) + shortcut)
            return summed
        return normalize_add(self.bn3, self.relu, out, shortcut)


def _make_stem(config: ResNetConfig, channels: int) -> nn.Module:
    if config.stem == "attention":
        pool = 1 if config.small else 4
        heads = math.gcd(4, channels)
        return AttentionStem(config.in_channels, channels, heads, values=config.stem_values, pool=pool)
    if config.small:
        return ConvStem(config.in_channels, channels, kernel_size=3, stride=1, pool=1)
    return ConvStem(config.in_channels, channels)


def _make_spatial(channels: int, stride: int, attend: bool, config: ResNetConfig) -> nn.Module:
    if not attend:
        return nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
    return make_attention(channels, stride, config)


def make_attention(channels: int, stride: int, config: ResNetConfig) -> LocalAttention2d:
    """Make the attention that stands in the place of a 3x3 convolution."""
    return LocalAttention2d(
        channels,
        channels,
        config.kernel_size,
        stride,
        num_heads=config.num_heads,
        position=config.position,
        content=config.content,
        border=config.border,
        shared_tables=config.shared_tables,
        scale=1.0 if config.scale == "initialization" else (channels / config.num_heads) ** -0.5,
        projection_kind=config.projection,
        backend=config.backend,
    )
