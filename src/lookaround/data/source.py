"""What every source of labelled images has in common: settings in, three parts out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch.utils.data import Dataset

from lookaround.data.preprocessing import Preprocessing
from lookaround.errors import DataError, message


@dataclass(frozen=True)
class Settings:
    """What a source needs to know; None stands for the source's own choice."""

    root: str | None = None
    image_size: int | None = None
    in_channels: int | None = None
    crop_fraction: float | None = None
    validation_fraction: float = 0.1
    download: bool = True
    verify: bool = True
    seed: int = 0
    hold_out: bool = False


@runtime_checkable
class Labelled(Protocol):
    """Images with labels, in memory or as files."""

    @property
    def targets(self) -> Sequence[int]:
        """The label of each image."""

    def select(self, indices: Sequence[int]) -> "Labelled":
        """Return some of the images."""

    def dataset(self, preprocessing: Preprocessing, augment: str = "none", seed: int = 0) -> Dataset[Any]:
        """Return a data set whose `__getitems__` gives whole batches."""


@dataclass(frozen=True)
class Splits:
    """A source's images in three parts; `test` is None where there is none."""

    train: Labelled
    validation: Labelled
    test: Labelled | None
    class_names: list[str]
    preprocessing: Preprocessing


class Source(NamedTuple):
    """`prepare` fetches and checks files, once a machine; `load` makes the parts, once a process."""

    prepare: Callable[[Settings], None]
    load: Callable[[Settings], Splits]


def stratified_split(
    targets: Sequence[int], fraction: float, seed: int, class_names: Sequence[str]
) -> tuple[list[int], list[int]]:
    """Return indices of the rest and of a `fraction` of every class, drawn by `seed`, each ascending.

    Raises:
        DataError: a class has a single image.

    Example:
        >>> rest, part = stratified_split([0, 0, 0, 0, 1, 1, 1, 1], 0.25, seed=0, class_names=["cat", "dog"])
        >>> len(rest), len(part)
        (6, 2)
    """
    labels = torch.as_tensor(targets)
    generator = torch.Generator().manual_seed(seed)
    part: list[int] = []
    for label, name in enumerate(class_names):
        members = (labels == label).nonzero().flatten()
        if len(members) == 1:
            must = (
                f"a class must have at least two images where a part is set aside; class {name!r} has too few"
            )
            hint = "add images, or give the set a validation folder of its own."
            raise DataError(message("stratified_split", must, "1 image", hint=hint))
        chosen = min(max(1, round(fraction * len(members))), len(members) - 1) if len(members) else 0
        part.extend(members[torch.randperm(len(members), generator=generator)[:chosen]].tolist())
    taken = set(part)
    return [index for index in range(len(labels)) if index not in taken], sorted(part)


def set_aside(images: Labelled, fraction: float, seed: int, class_names: Sequence[str]) -> tuple[Any, Any]:
    """Return what is left of `images` and a stratified `fraction` of them."""
    rest, part = stratified_split(images.targets, fraction, seed, class_names)
    return images.select(rest), images.select(part)
