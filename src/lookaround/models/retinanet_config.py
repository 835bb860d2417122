"""What a detector is made of, as plain data."""

import dataclasses
from dataclasses import dataclass

from lookaround.models.config import ResNetConfig, is_count, is_number

LAYERS = ("convolution", "attention")
NORMS = ("batch", "layer", "none")
ANCHORS = ("paper", "torchvision")
LAST_STAGE_LEVEL = 5  # the last stage halves the image five times
STAGES = 4

_COUNTS = ("pyramid_channels", "head_depth", "detections_per_image", "candidates_per_level")
_POSITIVE = ("anchor_scale", "box_loss_delta", "box_loss_weight")
_SHARES = ("focal_alpha", "foreground_iou", "background_iou", "score_threshold", "nms_threshold")
_CHOICES = {"pyramid": LAYERS, "heads": LAYERS, "norm": NORMS, "anchors": ANCHORS}


@dataclass(frozen=True)
class RetinaNetConfig(ResNetConfig):
    """Everything that tells one of our detectors from another.

    The fields of `ResNetConfig` describe the backbone; kernel_size, num_heads, position, content, border,
    shared_tables, scale, projection, batch_norm_momentum and backend hold for pyramid and heads as well.

    Attributes:
        num_classes: classes of objects; labels go from 0 to num_classes - 1.
        pyramid: "convolution" or "attention" in the feature pyramid.
        heads: "convolution" or "attention" in both branches of the head.
        pyramid_channels: channels of pyramid and heads.
        head_depth: layers of a branch before the one that predicts.
        residual: whether the layers of pyramid and heads add to what they are given, but for those of stride
            2; attention begins as a blur, and some in a row without it begin by hiding where things are. The
            paper has no such sum.
        norm: what follows each layer of pyramid and heads: "batch" (statistics of their own for each level),
            "layer" (over the channels of each pixel), or "none".
        levels: pyramid levels that are predicted from, one after another; level l has a pixel for every
            2^l pixels of the image. Those beyond the backbone's last stage are made from the level before.
        anchors: "paper" (two scales, three shapes) or "torchvision" (three scales, three shapes).
        anchor_scale: side of a level's smallest square anchor, in pixels of that level.
        focal_alpha: weight of the objects, beside 1 - focal_alpha of the background.
        focal_gamma: how much less the loss weighs what is well classified.
        box_loss_delta: where the Huber loss of the boxes turns from quadratic to linear.
        box_loss_weight: factor of the loss of the boxes.
        foreground_iou: overlap from which an anchor belongs to an object.
        background_iou: overlap below which it belongs to none; between the two it does not count.
        score_threshold: score above which a box is a detection.
        nms_threshold: overlap above which the lower of two boxes of one class is dropped.
        candidates_per_level: best boxes of each level that are kept before that.
        detections_per_image: best boxes of an image that are kept after it.
    """

    num_classes: int = 90
    pyramid: str = "convolution"
    heads: str = "convolution"
    pyramid_channels: int = 256
    head_depth: int = 4
    residual: bool = False
    norm: str = "batch"
    levels: tuple[int, ...] = (3, 4, 5, 6, 7)
    anchors: str = "paper"
    anchor_scale: float = 4.0
    focal_alpha: float = 0.25
    focal_gamma: float = 1.5
    box_loss_delta: float = 0.1
    box_loss_weight: float = 50.0
    foreground_iou: float = 0.5
    background_iou: float = 0.4
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    candidates_per_level: int = 1000
    detections_per_image: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in _COUNTS:
            value = getattr(self, name)
            self._require(is_count(value), f"{name} must be an integer >= 1", value)
        for name in _POSITIVE:
            value = getattr(self, name)
            self._require(is_number(value) and value > 0, f"{name} must be a finite number > 0", value)
        for name in _SHARES:
            value = getattr(self, name)
            self._require(is_number(value) and 0 <= value <= 1, f"{name} must be in [0, 1]", value)
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            self._require(value in choices, f"{name} must be one of {', '.join(choices)}", value)
        residual = self.residual
        self._require(isinstance(residual, bool), "residual must be True or False", residual)
        self._check_detection()

    def _check_detection(self) -> None:
        gamma, overlaps = self.focal_gamma, (self.background_iou, self.foreground_iou)
        self._require(is_number(gamma) and gamma >= 0, "focal_gamma must be a finite number >= 0", gamma)
        self._require(overlaps[0] <= overlaps[1], "background_iou must be <= foreground_iou", overlaps)
        self._check_levels()

    def _check_levels(self) -> None:
        levels, (first, last) = self.levels, self.stage_levels()
        fits = isinstance(levels, tuple) and len(levels) > 0 and all(is_level(level) for level in levels)
        fits = fits and levels == tuple(range(levels[0], levels[-1] + 1)) and first <= levels[0] <= last
        must = f"levels must follow each other, begin between {first} and {last} and hold {last}"
        self._require(fits and last in levels, must, levels)

    def stage_levels(self) -> tuple[int, int]:
        """Return the levels of the backbone's first and last stage."""
        last = LAST_STAGE_LEVEL - (2 if self.small else 0)
        return last - STAGES + 1, last

    def backbone(self) -> ResNetConfig:
        """Return the ResNet inside, whose last layer is left out."""
        names = [field.name for field in dataclasses.fields(ResNetConfig)]
        values = {name: getattr(self, name) for name in names}
        return ResNetConfig(**values | {"name": self.name.replace("retinanet_", ""), "num_classes": 1})


def is_level(value: object) -> bool:
    """Tell whether a value is an integer >= 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
