"""The feature pyramid, and the layers that it and the heads are made of."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from lookaround.models.padding import Mask, apply_spatial, shrink_mask
from lookaround.models.resnet import EXPANSION, ResNet, make_attention
from lookaround.models.retinanet_config import RetinaNetConfig
from lookaround.nn.pointwise import PointwiseConv2d


class Pyramid(nn.Module):
    """A feature pyramid: maps of one number of channels, each half as large as the one before.

    Every stage's map is brought to the common number of channels and added to the coarser level, enlarged.
    A spatial layer follows. Levels beyond the last stage are made from the level before by a spatial layer
    of stride 2.

    Args:
        config: what the detector is made of.

    Source:
        Lin et al. 2017, Feature Pyramid Networks, with the two further levels of RetinaNet (Lin et al. 2017,
        Focal Loss for Dense Object Detection), the sixth made from the fifth.
    """

    def __init__(self, config: RetinaNetConfig) -> None:
        super().__init__()
        channels, (first, last) = config.pyramid_channels, config.stage_levels()
        self.residual = config.residual
        self.stages = [f"layer{level - first + 1}" for level in config.levels if level <= last]
        widths = [config.channels(64 * 2 ** (int(stage[-1]) - 1)) * EXPANSION for stage in self.stages]
        self.lateral = nn.ModuleList(PointwiseConv2d(width, channels, bias=True) for width in widths)
        kind = config.pyramid
        self.spatial = nn.ModuleList(make_spatial(config, kind, channels) for _ in self.stages)
        further = [level for level in config.levels if level > last]
        self.further = nn.ModuleList(make_spatial(config, kind, channels, stride=2) for _ in further)
        self.norms = nn.ModuleList(make_norm(config) for _ in config.levels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, features: dict[str, Tensor], masks: Sequence[Mask]) -> list[Tensor]:
        """Return a map for each level, the finest first.

        Args:
            features: what `ResNet.features` returns.
            masks: of each level, as the maps are returned.
        """
        maps: list[Tensor] = []
        above: Tensor | None = None
        for index in reversed(range(len(self.stages))):
            inner = self.lateral[index](features[self.stages[index]])
            if above is not None:
                # Each pixel lies above two times two, whatever the size of the image.
                enlarged = F.interpolate(above, scale_factor=2)
                inner = inner + enlarged[..., : inner.shape[-2], : inner.shape[-1]]
            above = inner
            out = apply_spatial(self.spatial[index], inner, masks[index])
            maps.insert(0, inner + out if self.residual else out)
        for layer in self.further:
            below = maps[-1] if len(maps) == len(self.stages) else maps[-1].relu()
            maps.append(apply_spatial(layer, below, masks[len(maps) - 1]))
        return [norm(out) for norm, out in zip(self.norms, maps, strict=True)]


class PyramidBackbone(nn.Module):
    """A ResNet and the pyramid on top of it.

    Args:
        config: what the detector is made of.
    """

    def __init__(self, config: RetinaNetConfig) -> None:
        super().__init__()
        self.body = ResNet(config.backbone())
        self.body.fc = nn.Identity()  # type: ignore[assignment]  # it classifies nothing
        self.pyramid = Pyramid(config)
        self.levels, self.out_channels = config.levels, config.pyramid_channels

    def forward(self, images: Tensor, key_padding_mask: Mask = None) -> tuple[list[Tensor], list[Mask]]:
        """Return the maps of the levels and their masks."""
        masks = [shrink_mask(key_padding_mask, 2**level) for level in self.levels]
        return self.pyramid(self.body.features(images, key_padding_mask), masks), masks


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel: nothing depends on other pixels or images.

    Args:
        channels: of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return batch channels height width."""
        out: Tensor = self.norm(x.permute(0, 2, 3, 1))
        return out.permute(0, 3, 1, 2)


def make_norm(config: RetinaNetConfig) -> nn.Module:
    """Make what follows a layer of the pyramid or of a head."""
    channels = config.pyramid_channels
    if config.norm == "batch":
        return nn.BatchNorm2d(channels, momentum=config.batch_norm_momentum)
    return ChannelNorm(channels) if config.norm == "layer" else nn.Identity()


def make_spatial(config: RetinaNetConfig, kind: str, channels: int, stride: int = 1) -> nn.Module:
    """Make a 3x3 convolution, or the attention that stands in its place."""
    if kind == "convolution":
        return nn.Conv2d(channels, channels, 3, stride, padding=1, bias=config.norm == "none")
    return make_attention(channels, stride, config.backbone())
