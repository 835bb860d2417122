"""The two branches that tell of every anchor what it holds and where."""

import math

import torch
from torch import Tensor, nn

from lookaround.models.padding import Mask, apply_spatial
from lookaround.models.pyramid import make_norm, make_spatial
from lookaround.models.retinanet_config import RetinaNetConfig
from lookaround.nn import LocalAttention2d
from lookaround.nn.pointwise import PointwiseConv2d

PRIOR = 0.01  # score of every anchor before training, so that the many empty ones do not swamp the loss
STD = 0.01


class Branch(nn.Module):
    """Some spatial layers with ReLU, then one that predicts; the same for every level but for the norms.

    By convolution the layer that predicts is a 3x3 convolution. By attention it is attention once more, and
    a pointwise convolution that mixes its heads.

    Args:
        config: what the detector is made of.
        outputs: numbers to predict for each pixel.
        bias: constant of the predictions before training.

    Source:
        Lin et al. 2017 for the branch; Ramachandran et al. 2019, appendix, for its form by attention: every
        3x3 convolution becomes attention, the value maps start at N(0, 0.01), one pointwise convolution at
        the end mixes the heads. The norms of their own for each level are those of the RetinaNet for TPUs.
    """

    def __init__(self, config: RetinaNetConfig, outputs: int, bias: float = 0.0) -> None:
        super().__init__()
        channels = config.pyramid_channels
        depth, self.residual = config.head_depth, config.residual
        self.layers = nn.ModuleList(make_spatial(config, config.heads, channels) for _ in range(depth))
        self.norms = nn.ModuleList(
            nn.ModuleList(make_norm(config) for _ in config.levels) for _ in range(depth)
        )
        self.last: nn.Module | None = None
        if config.heads == "attention":
            self.last = make_spatial(config, config.heads, channels)
            self.predict: nn.Conv2d = PointwiseConv2d(channels, outputs, bias=True)
        else:
            self.predict = nn.Conv2d(channels, outputs, 3, padding=1)
        self._reset_parameters(bias)

    def _reset_parameters(self, bias: float) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            if isinstance(module, LocalAttention2d):
                with torch.no_grad():
                    module.projection.weight[-module.out_channels :].normal_(std=STD)
        assert self.predict.bias is not None
        nn.init.constant_(self.predict.bias, bias)

    def forward(self, x: Tensor, level: int, mask: Mask = None) -> Tensor:
        """Return batch outputs height width for the map of a level, which is counted from 0."""
        for layer, norms in zip(self.layers, self.norms, strict=True):
            assert isinstance(norms, nn.ModuleList)
            out = norms[level](apply_spatial(layer, x, mask)).relu()
            x = x + out if self.residual else out
        if self.last is not None:
            out = apply_spatial(self.last, x, mask)
            x = x + out if self.residual else out
        return apply_spatial(self.predict, x, mask)


class DetectionHead(nn.Module):
    """A branch for the classes and one for the boxes.

    Args:
        config: what the detector is made of.
        num_anchors: anchors of each pixel.
    """

    def __init__(self, config: RetinaNetConfig, num_anchors: int) -> None:
        super().__init__()
        self.num_classes = config.num_classes
        prior = -math.log((1 - PRIOR) / PRIOR)
        self.classes = Branch(config, num_anchors * config.num_classes, prior)
        self.boxes = Branch(config, num_anchors * 4)

    def forward(self, maps: list[Tensor], masks: list[Mask]) -> dict[str, list[Tensor]]:
        """Return a tensor for each level, as torchvision names and orders them.

        Returns:
            cls_logits: batch anchors num_classes.
            bbox_regression: batch anchors 4: shift of the centre and logarithm of the size, in anchors.
        """
        logits, deltas = [], []
        for level, (features, mask) in enumerate(zip(maps, masks, strict=True)):
            logits.append(_by_anchor(self.classes(features, level, mask), self.num_classes))
            deltas.append(_by_anchor(self.boxes(features, level, mask), 4))
        return {"cls_logits": logits, "bbox_regression": deltas}


def _by_anchor(x: Tensor, size: int) -> Tensor:
    """Turn batch anchors*size height width into batch height*width*anchors size."""
    rows: Tensor = x.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, size))
    return rows
