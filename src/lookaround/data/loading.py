"""Data loaders that shuffle as a function of (seed, epoch), can go on in mid-epoch, and fail readably."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from lookaround.data.augmentation import derived_seed
from lookaround.errors import ArgumentError, DataError, message

Key = int | tuple[int, int]
"""What a sampler gives a data set: an index, or (index, epoch) for an image to be changed at random."""
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Unreadable:
    """Stands for a batch with a broken image: workers hand it over, and the loader raises it as a DataError.

    An exception raised in a worker would reach the user as the text of a traceback.
    """

    text: str


def check_numbers(
    where: str, batch_size: int, num_workers: int, validation_fraction: float, in_channels: int | None
) -> None:
    """Refuse numbers with which nothing could be loaded.

    Args:
        where: what the user called, for the message.
        batch_size: images a step and process.
        num_workers: processes that decode images.
        validation_fraction: share of the training images set aside.
        in_channels: 1 for grey, 3 for colour, None for what the set has.

    Raises:
        ArgumentError: one of them cannot be used.
    """
    if batch_size < 1:
        raise ArgumentError(message(where, "batch_size must be at least 1", batch_size))
    if num_workers < 0:
        raise ArgumentError(message(where, "num_workers must be at least 0", num_workers))
    if not 0 < validation_fraction < 1:
        must = "validation_fraction must be greater than 0 and less than 1"
        raise ArgumentError(message(where, must, validation_fraction, hint="try 0.1."))
    if in_channels not in (None, 1, 3):
        raise ArgumentError(message(where, "in_channels must be 1 (grey), 3 (RGB) or None", in_channels))


def split_keys(keys: Sequence[Key]) -> tuple[list[int], int | None]:
    """Return the indices of one batch and their epoch, None where the images are wanted unchanged."""
    indices = [key if isinstance(key, int) else key[0] for key in keys]
    first = keys[0] if keys else 0
    return indices, None if isinstance(first, int) else first[1]


class EpochSampler(DistributedSampler[tuple[int, int]]):
    """Shuffles as a function of (seed, epoch), and tells the data set the epoch with each index.

    Lightning calls `set_epoch`, and leaves samplers of this base class alone when it trains on several
    devices.

    Args:
        number: how many images there are.
        seed: another seed gives another order.
        num_replicas: processes that share the images.
        rank: which of them this is.
    """

    def __init__(self, number: int, seed: int, num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(range(number), num_replicas=num_replicas, rank=rank)  # type: ignore[arg-type]
        self.order_seed = seed
        self.skip = 0  # images of the next pass that an interrupted run has seen already

    def __iter__(self) -> Iterator[tuple[int, int]]:
        self.seed = derived_seed(self.order_seed, self.epoch) - self.epoch  # the base class adds the epoch
        skip, self.skip = self.skip, 0
        yield from ((index, self.epoch) for index in list(super().__iter__())[skip:])  # type: ignore[misc]


class ImageLoader(DataLoader[Any]):
    """A DataLoader over data sets that give whole batches; a broken image raises DataError."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, Unreadable):
                raise DataError(batch.text)
            yield batch


class TrainLoader(ImageLoader):
    """An ImageLoader over an EpochSampler that can stop in mid-epoch and go on with the next batch.

    Lightning stores `state_dict()` in its checkpoints and gives it back before the first batch. The iterator
    is made when the first batch is asked for, not before, because Lightning asks for it before it calls
    `set_epoch`.
    """

    position = 0  # batches given out in this epoch
    resume: tuple[int, int] | None = None  # epoch and position to go on from

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        epoch = getattr(self.sampler, "epoch", 0)
        resume, self.resume = self.resume, None
        # An epoch that was complete when it was stored is over: its successor starts at the front.
        goes_on = resume is not None and resume[0] == epoch and resume[1] < len(self)
        self.position = resume[1] if resume is not None and goes_on else 0
        if isinstance(self.sampler, EpochSampler):
            self.sampler.skip = self.position * (self.batch_size or 1)
        for batch in super().__iter__():
            self.position += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and how many of its batches were given out."""
        return {"epoch": getattr(self.sampler, "epoch", 0), "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from what `state_dict` said, if the next pass is over the same epoch."""
        self.resume = (state["epoch"], state["position"])


def training_loader(
    dataset: Dataset[Any], sampler: EpochSampler, batch_size: int, num_workers: int
) -> TrainLoader:
    """Return a loader of full batches only, so that every step averages over the same number of images."""
    return TrainLoader(dataset, batch_size, sampler=sampler, drop_last=True, **_options(num_workers))


def evaluation_loader(dataset: Dataset[Any], batch_size: int, num_workers: int) -> ImageLoader:
    """Return a loader of every image, in order, unchanged."""
    return ImageLoader(dataset, batch_size, shuffle=False, **_options(num_workers))


def _options(num_workers: int) -> dict[str, Any]:
    return {
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
        "pin_memory": torch.cuda.is_available(),
        "collate_fn": _as_it_is,
        # Without one, each pass draws a number from the global generator, and a resumed run makes fewer
        # passes.
        "generator": torch.Generator(),
    }


def _as_it_is(batch: Any) -> Any:
    return batch
