"""Images with boxes as a data set: decoded when asked for, changed as a function of (seed, epoch, index)."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import Dataset

from lookaround.data.annotations import AnnotatedImage, Annotations
from lookaround.data.augmentation import seeded
from lookaround.data.detection_preprocessing import DetectionAugmentation
from lookaround.data.images import open_image
from lookaround.data.loading import Key, Unreadable
from lookaround.errors import DataError, message

Target = dict[str, Tensor]
"""What a loader tells of one image, for as many boxes as it has.

boxes: float32, x1 y1 x2 y2 in pixels of the tensor. labels: int64, from 0. area: float32, in square pixels of
the tensor. iscrowd: int64. image_id: int64, one number. original_size: int64, height and width in the file.
"""
DetectionBatch = tuple[list[Tensor], list[Target]]


class BoxDataset(Dataset[Any]):
    """Images and targets; those asked for by (index, epoch) are to be trained on, others to be measured.

    What is to be trained on is changed at random and has no crowd boxes.
    """

    def __init__(self, annotations: Annotations, augmentation: DetectionAugmentation, seed: int) -> None:
        self.images = annotations.images
        self.training = augmentation
        self.evaluation = DetectionAugmentation(augmentation.preprocessing)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: Key) -> tuple[Tensor, Target]:
        """Return one image and its target.

        Raises:
            DataError: the file cannot be read, or its image has another size than it is known to have.
        """
        if isinstance(key, int):
            return self._item(self.images[key], self.evaluation)
        index, epoch = key
        with seeded(self.seed, epoch, index):
            return self._item(self.images[index], self.training, trained_on=True)

    def __getitems__(self, keys: Sequence[Key]) -> DetectionBatch | Unreadable:
        """Return the batch of these images, or what to tell the user of the first that cannot be read."""
        try:
            items = [self[key] for key in keys]
        except DataError as error:
            return Unreadable(str(error))
        return [image for image, _ in items], [target for _, target in items]

    def _item(
        self, described: AnnotatedImage, change: DetectionAugmentation, trained_on: bool = False
    ) -> tuple[Tensor, Target]:
        picture = open_image(described.path)
        size = (described.width, described.height)
        if picture.size != size:
            got = f"{picture.size[0]}x{picture.size[1]} in {described.path!r}"
            must = f"the image must have the size of its description, {size[0]}x{size[1]}"
            hint = "set verify=True: such images are dropped before training."
            raise DataError(message("DetectionData", must, got, hint=hint))
        image, boxes, kept = change(picture, torch.from_numpy(described.boxes).float())
        crowd = torch.from_numpy(described.crowd)
        chosen = kept & ~crowd if trained_on else torch.ones_like(crowd)
        return image, _target(described, boxes, chosen, image)


def _target(
    described: AnnotatedImage,
    boxes: Float[Tensor, "boxes 4"],
    chosen: Bool[Tensor, " boxes"],
    image: Float[Tensor, "channels height width"],
) -> Target:
    """Compose the target of the boxes that are chosen."""
    before = torch.from_numpy(described.boxes)
    # Outlines shrink with their boxes: by the scale of the image and by what a crop cut off.
    share = _areas(boxes.double()) / _areas(before)
    return {
        "boxes": boxes[chosen],
        "labels": torch.from_numpy(described.labels)[chosen],
        "image_id": torch.tensor(described.image_id),
        "area": (torch.from_numpy(described.areas) * share).float()[chosen],
        "iscrowd": torch.from_numpy(described.crowd).long()[chosen],
        "original_size": torch.tensor([described.height, described.width]),
    }


def _areas(boxes: Float[Tensor, "boxes 4"]) -> Float[Tensor, " boxes"]:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def to_original(boxes: Float[Tensor, "boxes 4"], image: Tensor, target: Target) -> Float[Tensor, "boxes 4"]:
    """Return boxes of an evaluated image in the pixels of its file, where the true boxes are told.

    Args:
        boxes: x1 y1 x2 y2 in pixels of `image`.
        image: what the loader gave, channels height width.
        target: what the loader gave with it.

    Example:
        >>> target = {"original_size": torch.tensor([100, 200])}
        >>> to_original(torch.tensor([[0.0, 0.0, 10.0, 5.0]]), torch.zeros(3, 50, 100), target)
        tensor([[ 0.,  0., 20., 10.]])
    """
    height, width = (target["original_size"].to(boxes) / torch.tensor(image.shape[-2:]).to(boxes)).unbind()
    return boxes * torch.stack([width, height, width, height])
