"""What a trained network is shown of a picture, and where a pixel of the picture is in it."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lookaround.errors import ArgumentError, CheckpointError, message

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from lookaround.data.detection_preprocessing import DetectionPreprocessing
    from lookaround.data.preprocessing import Preprocessing
    from lookaround.models.variants import Model


@dataclass(frozen=True)
class Viewer:
    """A trained network on a device, and how pictures are prepared for it.

    Attributes:
        model: the network.
        preprocessing: of a classifier or a detector.
        device: where it runs.
    """

    model: "Model"
    preprocessing: "Preprocessing | DetectionPreprocessing"
    device: str

    @classmethod
    def load(cls, weights: str, device: str) -> "Viewer":
        """Read weights with their record.

        Raises:
            ArgumentError: there is no such device.
            CheckpointError: they cannot be read, or do not say how images are prepared.
        """
        import torch

        from lookaround.data.detection_preprocessing import DetectionPreprocessing
        from lookaround.data.preprocessing import Preprocessing
        from lookaround.models import RetinaNetConfig
        from lookaround.models.checkpoint import load_model

        if device == "cuda" and not torch.cuda.is_available():
            must = "--device cuda must be a device that is there"
            raise ArgumentError(message("maps", must, "no CUDA device", hint="try --device cpu."))
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        model, record = load_model(weights)
        is_detector = isinstance(model.config, RetinaNetConfig)
        kind: Any = DetectionPreprocessing if is_detector else Preprocessing
        try:
            preprocessing = kind.from_dict(record.preprocessing)
        except ArgumentError as error:
            must = "the weights' record must say how images are prepared"
            raise CheckpointError(message("maps", must, f"this: {error}")) from error
        return cls(model.eval().to(chosen), preprocessing, chosen)

    def prepare(self, picture: "Image") -> "Tensor":
        """Turn a picture into what the network is shown: channels height width, normalised."""
        evaluation: Any = self.preprocessing.evaluation
        tensor: Tensor = evaluation(picture) if self.is_detector else evaluation()(picture)
        return tensor

    def batch(self, image: "Tensor") -> "Tensor | list[Tensor]":
        """Make a batch of one image, as the network takes it."""
        return [image.to(self.device)] if self.is_detector else image[None].to(self.device)

    @property
    def is_detector(self) -> bool:
        """Whether the network is shown whole pictures of any shape, and not their square centres."""
        return not hasattr(self.preprocessing, "crop_fraction")

    def locate(self, x: int, y: int, size: tuple[int, int]) -> tuple[int, int]:
        """Return the row and column in what the network is shown of a pixel of the picture.

        Args:
            x: column in the picture.
            y: row in the picture.
            size: width and height of the picture.

        Raises:
            ArgumentError: the pixel lies outside of the picture, or of what the network is shown of it.
        """
        width, height = size
        if not (0 <= x < width and 0 <= y < height):
            must = f"--query must lie within the picture of {width}x{height} pixels"
            raise ArgumentError(message("maps", must, f"{x},{y}"))
        if self.is_detector:
            wide, high = self.preprocessing.size_of(width, height)  # type: ignore[union-attr]
            return int((y + 0.5) * high / height), int((x + 0.5) * wide / width)
        side = self.preprocessing.image_size
        row, column = (_along(pixel, axis, size, self.preprocessing) for pixel, axis in ((y, 1), (x, 0)))
        if not (0 <= row < side and 0 <= column < side):
            must = "--query must lie in the part of the picture that the network is shown, its centre"
            raise ArgumentError(message("maps", must, f"{x},{y} of {width}x{height} pixels"))
        return row, column


def _along(pixel: int, axis: int, size: tuple[int, int], preprocessing: Any) -> int:
    """Follow a column (axis 0) or a row (axis 1) through `Preprocessing.frame`."""
    from lookaround.data.preprocessing import LARGEST_ASPECT

    kept = [min(length, LARGEST_ASPECT * min(size)) for length in size]
    shorter: int = round(preprocessing.image_size / preprocessing.crop_fraction)
    resized = shorter * kept[axis] // min(kept)
    cut_before: int = size[axis] - kept[axis]
    cut_after: int = resized - preprocessing.image_size
    scaled = (pixel - round(cut_before / 2) + 0.5) * resized / kept[axis]
    return math.floor(scaled) - round(cut_after / 2)
