"""Small sets of grey images, held as bytes in memory; augmented and normalised by the batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import to_pil_image

from lookaround.data.augmentation import apply_moves, check_augment, derived_seed, draw_moves, seeded
from lookaround.data.loading import Batch, Key, split_keys
from lookaround.data.preprocessing import Preprocessing
from lookaround.data.source import Settings


@dataclass(frozen=True)
class LabelledImages:
    """Grey images and their labels."""

    images: UInt8[Tensor, "number 1 height width"]
    labels: Int64[Tensor, " number"]

    @property
    def targets(self) -> list[int]:
        """The label of each image."""
        return list(self.labels.tolist())

    def select(self, indices: Sequence[int]) -> "LabelledImages":
        """Return some of the images."""
        return LabelledImages(self.images[list(indices)], self.labels[list(indices)])

    def dataset(self, preprocessing: Preprocessing, augment: str = "none", seed: int = 0) -> "MemoryDataset":
        """Return a data set whose `__getitems__` gives whole batches."""
        return MemoryDataset(self, preprocessing, augment, seed)


class MemoryDataset(Dataset[Any]):
    """Batches of normalised images; a random change is a function of (seed, epoch, index).

    Cost: "none", "shift" and "shift_flip" are a few tensor operations a batch; "paper" works image by image.
    """

    def __init__(self, source: LabelledImages, preprocessing: Preprocessing, augment: str, seed: int) -> None:
        check_augment("MemoryDataset", augment)
        self.preprocessing = preprocessing
        self.augment = augment
        self.seed = seed
        self.images = source.images if augment == "paper" else preprocessing.frame(source.images)
        self.labels = source.labels
        self._moves: tuple[int, Tensor] | None = None  # of the epoch that was asked for last

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: Key) -> Batch:
        images, labels = self.__getitems__([key])
        return images[0], labels[0]

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """Return the batch of these images: float batch channels height width, and labels."""
        indices, epoch = split_keys(keys)
        if self.augment == "paper":
            return self._one_by_one(indices, epoch), self.labels[indices]
        images = self.images[indices]
        if epoch is not None and self.augment != "none":
            images = apply_moves(images, self._moves_of(epoch)[indices])
        return self.preprocessing.normalise(images), self.labels[indices]

    def _moves_of(self, epoch: int) -> Tensor:
        if self._moves is None or self._moves[0] != epoch:
            generator = torch.Generator().manual_seed(derived_seed(self.seed, epoch))
            flip = self.augment == "shift_flip"
            moves = draw_moves(len(self), self.preprocessing.image_size, flip, generator)
            self._moves = (epoch, moves)
        return self._moves[1]

    def _one_by_one(self, indices: list[int], epoch: int | None) -> Tensor:
        pictures = [to_pil_image(self.images[index]) for index in indices]
        if epoch is None:
            return torch.stack([self.preprocessing.evaluation()(picture) for picture in pictures])
        change = self.preprocessing.training(self.augment)
        changed = []
        for index, picture in zip(indices, pictures, strict=True):
            with seeded(self.seed, epoch, index):
                changed.append(change(picture))
        return torch.stack(changed)


def grey_preprocessing(settings: Settings, image_size: int, mean: float, std: float) -> Preprocessing:
    """Return what the settings ask for, and for the rest what fits grey images of this size."""
    channels = 1 if settings.in_channels is None else settings.in_channels
    return Preprocessing(
        image_size=image_size if settings.image_size is None else settings.image_size,
        in_channels=channels,
        mean=(mean,) * channels,
        std=(std,) * channels,
        crop_fraction=1.0 if settings.crop_fraction is None else settings.crop_fraction,
    )
