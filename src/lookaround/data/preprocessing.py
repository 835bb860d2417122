"""How one image becomes one tensor; stored beside trained weights, for predicting as in training."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from lookaround.data.augmentation import apply_moves, check_augment, draw_moves
from lookaround.data.images import to_pixels
from lookaround.errors import ArgumentError, message

# Beyond this ratio of the sides an image is cropped before it is resized, or a strip of one pixel's height
# would become a picture of gigabytes.
LARGEST_ASPECT = 16


@dataclass(frozen=True)
class Preprocessing:
    """Size, channels and normalisation of the images that a network is trained on.

    Args:
        image_size: side of the square that the network sees, in pixels.
        in_channels: 1 for grey, 3 for RGB.
        mean: of each channel, of pixels scaled to 0 … 1.
        std: of each channel, likewise.
        crop_fraction: the share of the shorter side that the centre crop keeps.

    Raises:
        ArgumentError: a value cannot be used.

    Example:
        >>> digits = Preprocessing(image_size=8, in_channels=1, mean=(0.3,), std=(0.4,))
        >>> Preprocessing.from_dict(digits.to_dict()) == digits
        True
        >>> digits.evaluation()(Image.new("RGB", (20, 16))).shape
        torch.Size([1, 8, 8])
    """

    image_size: int
    in_channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_fraction: float = 1.0

    def __post_init__(self) -> None:
        if not _is_whole(self.image_size) or self.image_size < 1:
            raise _wrong("image_size must be a whole number >= 1", self.image_size)
        if not _is_whole(self.in_channels) or self.in_channels not in (1, 3):
            raise _wrong("in_channels must be 1 (grey) or 3 (RGB)", self.in_channels)
        for name, values in (("mean", self.mean), ("std", self.std)):
            if not isinstance(values, tuple) or not all(_is_number(value) for value in values):
                raise _wrong(f"{name} must be a tuple of finite numbers", values)
            if len(values) != self.in_channels:
                raise _wrong(f"{name} must have one number a channel, {self.in_channels} of them", values)
        if min(self.std) <= 0:
            raise _wrong("std must be greater than 0", self.std)
        if not _is_number(self.crop_fraction) or not 0 < self.crop_fraction <= 1:
            raise _wrong("crop_fraction must be in (0, 1]", self.crop_fraction)

    def to_dict(self) -> dict[str, Any]:
        """Return numbers, lists and strings only, as JSON and YAML can hold."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """Build from what `to_dict` gave.

        Raises:
            ArgumentError: an entry is missing, is not known, or has a value that cannot be used.
        """
        if not isinstance(values, Mapping):
            raise _wrong("a description must be a mapping of names to values", type(values).__name__)
        known = {field.name for field in fields(cls)}
        missing, unknown = (
            sorted(known - {"crop_fraction"} - set(values)),
            sorted(map(str, set(values) - known)),
        )
        if missing or unknown:
            lines = [f"missing: {', '.join(missing) or 'none'}", f"unknown: {', '.join(unknown) or 'none'}"]
            must = f"a description must have the entries {', '.join(sorted(known))}"
            raise ArgumentError(message("Preprocessing", must, sorted(map(str, values)), lines=lines))
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)

    def evaluation(self) -> Callable[[Image.Image], Tensor]:
        """Return what turns a picture of any mode and size into a tensor, channels height width."""
        return _Evaluation(self)

    def training(self, augment: str) -> Callable[[Image.Image], Tensor]:
        """Return what turns a picture into a tensor with a random change, drawn from torch's global
        generator.

        Args:
            augment: "none", "shift" (moved by up to an eighth of the side), "shift_flip" (also mirrored half
                the time) or "paper" (a random part of 8 to 100 % of the area, resized, mirrored half the
                time).
        """
        check_augment("Preprocessing.training", augment)
        if augment == "none":
            return _Evaluation(self)
        return _RandomCrop(self) if augment == "paper" else _RandomMove(self, flip=augment == "shift_flip")

    def frame(
        self, pixels: UInt8[Tensor, "*batch channels height width"]
    ) -> UInt8[Tensor, "*batch channels size size"]:
        """Resize the shorter side to image_size / crop_fraction where it is not, and crop the centre."""
        height, width = pixels.shape[-2:]
        longest = LARGEST_ASPECT * min(height, width)
        if max(height, width) > longest:
            pixels = functional.center_crop(pixels, [min(height, longest), min(width, longest)])
        pixels = functional.resize(pixels, [round(self.image_size / self.crop_fraction)], antialias=True)
        return torch.as_tensor(functional.center_crop(pixels, [self.image_size, self.image_size]))

    def normalise(
        self, pixels: UInt8[Tensor, "*batch some_channels height width"]
    ) -> Float[Tensor, "*batch channels height width"]:
        """Scale 0 … 255 to 0 … 1, then to zero mean and unit deviation; grey is repeated."""
        if pixels.shape[-3] != self.in_channels:
            pixels = pixels.expand(*pixels.shape[:-3], self.in_channels, -1, -1)
        images = functional.to_dtype(pixels, torch.float32, scale=True)
        return torch.as_tensor(functional.normalize(images, list(self.mean), list(self.std)))


class _Evaluation:
    """Resize, centre crop, normalise."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing

    def __call__(self, image: Image.Image) -> Tensor:
        pixels = to_pixels(image, self.preprocessing.in_channels)
        return self.preprocessing.normalise(self.preprocessing.frame(pixels))


class _RandomMove:
    """Resize, centre crop, move by a few pixels, perhaps mirror, normalise."""

    def __init__(self, preprocessing: Preprocessing, *, flip: bool) -> None:
        self.preprocessing = preprocessing
        self.flip = flip

    def __call__(self, image: Image.Image) -> Tensor:
        pixels = self.preprocessing.frame(to_pixels(image, self.preprocessing.in_channels))
        moves = draw_moves(1, self.preprocessing.image_size, self.flip)
        return self.preprocessing.normalise(apply_moves(pixels[None], moves)[0])


class _RandomCrop:
    """The paper's kind of augmentation: a random part of the image, resized, perhaps mirrored, normalised."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing
        self.change = v2.Compose([v2.RandomResizedCrop(preprocessing.image_size), v2.RandomHorizontalFlip()])

    def __call__(self, image: Image.Image) -> Tensor:
        pixels = to_pixels(image, self.preprocessing.in_channels)
        return self.preprocessing.normalise(torch.as_tensor(self.change(pixels)))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _wrong(must: str, got: object) -> ArgumentError:
    return ArgumentError(message("Preprocessing", must, repr(got)))
