"""The boxes that the predictions start from."""

import math

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator

from lookaround.models.retinanet_config import RetinaNetConfig

# Width and height in units of the side; Ramachandran et al. 2019, appendix.
PAPER_SHAPES = ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4))
PAPER_SCALES = (1.0, math.sqrt(2))
RATIOS = (0.5, 1.0, 2.0)  # height over width
THIRDS = (0, 1 / 3, 2 / 3)  # of an octave


class LevelAnchors(AnchorGenerator):  # type: ignore[misc]  # torchvision has no types
    """Anchors whose places depend on the level alone.

    torchvision's generator divides the size of the batch by that of the map, so that an image whose sides are
    no multiples of the largest stride would get other anchors alone than in a batch.

    Args:
        config: what the detector is made of; `anchors` chooses:
            "paper": 2 scales of an octave and 3 shapes, in the middle of the pixels they belong to;
            "torchvision": 3 scales and 3 ratios, rounded to whole pixels, at the pixels' top left corner.

    Source:
        Ramachandran et al. 2019, appendix; torchvision's `retinanet_resnet50_fpn`.
    """

    def __init__(self, config: RetinaNetConfig) -> None:
        self.strides = [2**level for level in config.levels]
        sides = [config.anchor_scale * stride for stride in self.strides]
        self.shift = 0.5 if config.anchors == "paper" else 0.0
        if config.anchors == "paper":
            sizes = [[side * scale for scale in PAPER_SCALES] for side in sides]
        else:
            sizes = [[int(side * 2**third) for third in THIRDS] for side in sides]
        super().__init__(sizes, [list(RATIOS)] * len(sizes))
        if config.anchors == "paper":
            self.cell_anchors = [_boxes_around_zero(scaled) for scaled in sizes]

    def by_level(self, size: tuple[int, int], device: torch.device) -> list[Tensor]:
        """Return the anchors of each level, height*width*anchors x1 y1 x2 y2, in pixels of the image.

        Args:
            size: height and width of the image.
            device: where the anchors are made.
        """
        self.set_cell_anchors(torch.float32, device)
        anchors = []
        for stride, cell in zip(self.strides, self.cell_anchors, strict=True):
            ys, xs = (
                (torch.arange(-(-side // stride), device=device) + self.shift) * stride for side in size
            )
            rows, columns = torch.meshgrid(ys, xs, indexing="ij")
            centres = torch.stack([columns, rows, columns, rows], dim=-1).flatten(0, 1)
            anchors.append((centres[:, None] + cell).flatten(0, 1))
        return anchors


def _boxes_around_zero(sides: list[float]) -> Tensor:
    halves = [(side * wide / 2, side * high / 2) for wide, high in PAPER_SHAPES for side in sides]
    return torch.tensor([(-x, -y, x, y) for x, y in halves], device="cpu")
