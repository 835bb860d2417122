"""How an image with boxes becomes tensors: resized with its shape kept, changed at random, normalised."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from lookaround.data.images import to_pixels
from lookaround.data.preprocessing import Preprocessing
from lookaround.errors import ArgumentError, UnknownNameError, closest, message

AUGMENTATIONS = ("none", "flip", "paper")
"""none: unchanged. flip: mirrored half the time. paper: also of a random scale, and a random crop."""
SMALLEST_LEFT = 1.0  # pixels of a side; what a crop or a smaller scale leaves of a box must be no less


@dataclass(frozen=True)
class DetectionPreprocessing:
    """Size, channels and normalisation of the images that a detector is trained on.

    An image is resized so that its longer side is `image_size`, up or down; its shape stays.

    Args:
        image_size: the longer side, in pixels.
        in_channels: 1 for grey, 3 for RGB.
        mean: of each channel, of pixels scaled to 0 … 1.
        std: of each channel, likewise.

    Raises:
        ArgumentError: a value cannot be used.

    Example:
        >>> scenes = DetectionPreprocessing(128, 3, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        >>> scenes.evaluation(Image.new("RGB", (512, 256))).shape
        torch.Size([3, 64, 128])
        >>> DetectionPreprocessing.from_dict(scenes.to_dict()) == scenes
        True
    """

    image_size: int
    in_channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        self._single()

    def _single(self) -> Preprocessing:
        return Preprocessing(self.image_size, self.in_channels, self.mean, self.std)

    def to_dict(self) -> dict[str, Any]:
        """Return numbers and lists only, as JSON and YAML can hold."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DetectionPreprocessing":
        """Build from what `to_dict` gave.

        Raises:
            ArgumentError: an entry is missing, is not known, or has a value that cannot be used.
        """
        known = Preprocessing.from_dict(values)
        return cls(known.image_size, known.in_channels, known.mean, known.std)

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height that an image of this width and height is resized to.

        Example:
            >>> DetectionPreprocessing(64, 1, (0.5,), (0.5,)).size_of(100, 50)
            (64, 32)
        """
        scale = self.image_size / max(width, height)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def evaluation(self, image: Image.Image) -> Float[Tensor, "channels height width"]:
        """Turn a picture of any mode and size into what the network is evaluated on."""
        pixels = to_pixels(image, self.in_channels)
        return self.normalise(_resize(pixels, self.size_of(*image.size)))

    def normalise(
        self, pixels: UInt8[Tensor, "channels height width"]
    ) -> Float[Tensor, "channels height width"]:
        """Scale 0 … 255 to 0 … 1, then to zero mean and unit deviation."""
        return self._single().normalise(pixels)


@dataclass(frozen=True)
class DetectionAugmentation:
    """Random changes to a picture and its boxes, drawn from torch's global generator.

    Args:
        preprocessing: what to do with every picture.
        augment: "none", "flip" (mirrored half the time) or "paper": the longer side becomes `image_size`
            times a random number of `jitter`, a random part of at most `image_size` on each side is cut out,
            and half of the pictures are mirrored.
        jitter: smallest and largest scale of "paper".

    Source: "Stand-Alone Self-Attention in Vision Models", section 4.2: multi-scale jitter, crops of at most
    640 pixels, mirrored with a probability of 50 %. The range of the jitter is not stated there; ours is 0.8
    to 1.2.
    """

    preprocessing: DetectionPreprocessing
    augment: str = "none"
    jitter: tuple[float, float] = (0.8, 1.2)

    def __post_init__(self) -> None:
        if self.augment not in AUGMENTATIONS:
            hint = closest(str(self.augment), AUGMENTATIONS)
            must = "augment must be a known augmentation"
            raise UnknownNameError(message("DetectionData", must, repr(self.augment), hint=hint))
        low, high = self.jitter
        if not 0 < low <= high < math.inf:
            must = "jitter must be two scales above 0, the smaller one first"
            raise ArgumentError(message("DetectionData", must, self.jitter, hint="try 0.8 and 1.2."))

    def __call__(
        self, image: Image.Image, boxes: Float[Tensor, "boxes 4"]
    ) -> tuple[Float[Tensor, "channels height width"], Float[Tensor, "boxes 4"], Bool[Tensor, " boxes"]]:
        """Return the normalised image, the boxes in its pixels, and which of them are still there.

        The boxes keep their number and order; of those that a crop emptied, or that are thinner than a
        pixel, only the place is left.
        """
        pixels = to_pixels(image, self.preprocessing.in_channels)
        width, height = image.size
        canvas = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width))
        changed, moved = self._change(tv_tensors.Image(pixels), canvas)
        _, kept = functional.sanitize_bounding_boxes(moved, min_size=SMALLEST_LEFT)
        image_out = self.preprocessing.normalise(changed.as_subclass(Tensor))
        return image_out, moved.as_subclass(Tensor), kept.as_subclass(Tensor)

    def _change(self, pixels: tv_tensors.Image, boxes: tv_tensors.BoundingBoxes) -> tuple[Tensor, Tensor]:
        height, width = pixels.shape[-2:]
        target = self.preprocessing.size_of(width, height)
        if self.augment == "paper":
            low, high = self.jitter
            scale = low + (high - low) * torch.rand(()).item()
            target = (max(1, round(target[0] * scale)), max(1, round(target[1] * scale)))
        changed, moved = _resize(pixels, target), _resize(boxes, target)
        if self.augment == "paper":
            crop = _draw_crop(target, self.preprocessing.image_size)
            changed, moved = functional.crop(changed, *crop), functional.crop(moved, *crop)
        if self.augment != "none" and torch.rand(()) < 0.5:
            changed, moved = functional.horizontal_flip(changed), functional.horizontal_flip(moved)
        return changed, moved


def _resize(value: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize pixels or boxes to (width, height); what has that size already is not touched."""
    width, height = size
    before = value.canvas_size if isinstance(value, tv_tensors.BoundingBoxes) else value.shape[-2:]
    if tuple(before) == (height, width):
        return value
    resized: Tensor = functional.resize(value, [height, width], antialias=True)
    return resized


def _draw_crop(size: tuple[int, int], most: int) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a random part of at most `most` pixels on each side."""
    width, height = (min(side, most) for side in size)
    left, top = (
        int(torch.randint(side - part + 1, ())) for side, part in zip(size, (width, height), strict=True)
    )
    return top, left, height, width
