"""A user's own images in an ImageFolder tree: one folder a class, below train, val, test or the root."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from lookaround.data.augmentation import check_augment, seeded
from lookaround.data.images import check_image, find_images, is_grey, open_image
from lookaround.data.loading import Batch, Key, Unreadable
from lookaround.data.preprocessing import Preprocessing
from lookaround.data.source import Settings, Source, Splits, set_aside
from lookaround.errors import ArgumentError, DataError, message

IMAGE_SIZE, CROP_FRACTION = 224, 0.875
# ImageNet's, as torchvision has them; for grey, of its images turned to luminance.
STATISTICS = {3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), 1: ((0.449,), (0.226,))}
VALIDATION_NAMES = ("val", "validation", "valid")
TEST_FRACTION, TEST_SEED = 0.1, 0
PROBED_FOR_COLOUR = 64
LISTED = 5  # broken files that a message names


@dataclass(frozen=True)
class LabelledFiles:
    """Paths of images and their labels."""

    paths: tuple[str, ...]
    targets: tuple[int, ...]

    def select(self, indices: Sequence[int]) -> "LabelledFiles":
        """Return some of the images."""
        paths, targets = (tuple(items[index] for index in indices) for items in (self.paths, self.targets))
        return LabelledFiles(paths, targets)  # type: ignore[arg-type]

    def dataset(self, preprocessing: Preprocessing, augment: str = "none", seed: int = 0) -> "FileDataset":
        """Return a data set whose `__getitems__` gives whole batches."""
        return FileDataset(self, preprocessing, augment, seed)


class FileDataset(Dataset[Any]):
    """Images decoded when they are asked for; a random change is a function of (seed, epoch, index)."""

    def __init__(self, source: LabelledFiles, preprocessing: Preprocessing, augment: str, seed: int) -> None:
        check_augment("FileDataset", augment)
        self.source = source
        self.seed = seed
        self.evaluation = preprocessing.evaluation()
        self.training = preprocessing.training(augment)

    def __len__(self) -> int:
        return len(self.source.targets)

    def __getitem__(self, key: Key) -> Batch:
        """Return one image and its label.

        Raises:
            DataError: the file cannot be read; the message names it.
        """
        index = key if isinstance(key, int) else key[0]
        picture, label = open_image(self.source.paths[index]), torch.tensor(self.source.targets[index])
        if isinstance(key, int):
            return self.evaluation(picture), label
        with seeded(self.seed, key[1], index):
            return self.training(picture), label

    def __getitems__(self, keys: Sequence[Key]) -> Batch | Unreadable:
        """Return the batch of these images, or what to tell the user of the first that cannot be read."""
        try:
            items = [self[key] for key in keys]
        except DataError as error:
            return Unreadable(str(error))
        images, labels = zip(*items, strict=True)
        return torch.stack(images), torch.stack(labels)


def prepare(settings: Settings) -> None:
    """Look at every file's header where `settings.verify` says so.

    Raises:
        DataError: the tree is not of the right form, or some files are no images or cut short.
    """
    parts = _find_parts(settings)[1]
    if not settings.verify:
        return
    paths = [path for part in parts if part is not None for path in part.paths]
    broken = []
    for path in paths:
        try:
            check_image(path)
        except DataError as error:
            broken.append((path, error))
    if broken:
        lines = [path for path, _ in broken[:LISTED]]
        lines += [f"and {len(broken) - LISTED} more"] if len(broken) > LISTED else []
        must = "every file with an image's name must be an image that can be decoded"
        got = f"{len(broken)} of {len(paths)} files that cannot"
        hint = "replace or remove these files."
        raise DataError(message("folder", must, got, lines=lines, hint=hint)) from broken[0][1]


def load(settings: Settings) -> Splits:
    """Return the tree's parts; without a validation folder, a seeded share of every class is set aside.

    With `settings.hold_out` it is set aside in any case; a validation folder is the test part then, if there
    is no other. A tree without a train folder is cut in three: a tenth of every class to test, the same for
    every seed.

    Raises:
        DataError: the tree is not of the right form.
    """
    names, (train, validation, test) = _find_parts(settings)
    if not _is_split(_root(settings)):
        train, test = set_aside(train, TEST_FRACTION, TEST_SEED, names)
    elif settings.hold_out:
        validation, test = None, validation if test is None else test
    if validation is None:
        train, validation = set_aside(train, settings.validation_fraction, settings.seed, names)
    return Splits(train, validation, test, names, _preprocessing(settings, train))


SOURCE = Source(prepare, load)


def leaves_test(settings: Settings) -> bool:
    """Tell from the names of a tree's folders alone whether `load` finds or makes a test part."""
    root = _root(settings)
    names = ("test", *VALIDATION_NAMES) if settings.hold_out else ("test",)
    return not _is_split(root) or any((root / name).is_dir() for name in names)


def list_classes(folder: Path) -> list[str]:
    """Return the names of the folders in `folder`, sorted, hidden ones left out: two at least.

    Raises:
        DataError: there is no such folder, or it holds fewer than two.
    """
    if not folder.is_dir():
        hint = "check the path; relative ones start at the current folder."
        raise DataError(message("folder", "root must be a folder that exists", repr(str(folder)), hint=hint))
    names = sorted(
        entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    if len(names) < 2:
        got = f"{len(names)} in {str(folder)!r}" + (f" ({names[0]!r})" if names else "")
        hint = "put the images of each class into a folder with its name, for example root/train/cat/1.jpg."
        must = "an image tree must hold at least two class folders"
        raise DataError(message("folder", must, got, hint=hint))
    return names


def list_files(folder: Path, class_names: Sequence[str]) -> LabelledFiles:
    """Return the images of every class folder in `folder`.

    Raises:
        DataError: a class folder holds no image, or is of a class that is not in `class_names`.
    """
    paths: list[str] = []
    targets: list[int] = []
    for name in list_classes(folder):
        if name not in class_names:
            must = f"{str(folder)!r} must hold classes of the training images only"
            raise DataError(
                message("folder", must, repr(name), hint=f"the classes are {', '.join(class_names)}.")
            )
        found = [str(path) for path in find_images(folder / name)]
        if not found:
            hint = "add images (PNG, JPEG, …) or remove the folder."
            must = "every class folder must hold at least one image"
            raise DataError(message("folder", must, f"none in {str(folder / name)!r}", hint=hint))
        paths += found
        targets += [class_names.index(name)] * len(found)
    return LabelledFiles(tuple(paths), tuple(targets))


def _root(settings: Settings) -> Path:
    if settings.root is None:
        hint = "set data.root to the folder that holds train/ and val/, or the class folders."
        raise ArgumentError(message("folder", "root must name the folder of the images", None, hint=hint))
    return Path(settings.root)


def _is_split(root: Path) -> bool:
    return (root / "train").is_dir()


Parts = tuple[LabelledFiles, LabelledFiles | None, LabelledFiles | None]


def _find_parts(settings: Settings) -> tuple[list[str], Parts]:
    root = _root(settings)
    if not _is_split(root):
        names = list_classes(root)
        misplaced = sorted({*VALIDATION_NAMES, "test"} & set(names))
        if misplaced:
            must = f"a tree with a folder {misplaced[0]!r} must have a folder 'train' beside it"
            raise DataError(
                message("folder", must, repr(str(root)), hint="rename the folder of training images.")
            )
        return names, (list_files(root, names), None, None)
    names = list_classes(root / "train")
    validation = next((root / name for name in VALIDATION_NAMES if (root / name).is_dir()), None)
    test = root / "test"
    parts = (
        list_files(root / "train", names),
        None if validation is None else list_files(validation, names),
        list_files(test, names) if test.is_dir() else None,
    )
    return names, parts


def _preprocessing(settings: Settings, train: LabelledFiles) -> Preprocessing:
    channels = settings.in_channels
    if channels is None:
        step = max(1, len(train.paths) // PROBED_FOR_COLOUR)
        channels = 1 if all(is_grey(path) for path in train.paths[::step]) else 3
    mean, std = STATISTICS[channels]
    return Preprocessing(
        image_size=IMAGE_SIZE if settings.image_size is None else settings.image_size,
        in_channels=channels,
        mean=mean,
        std=std,
        crop_fraction=CROP_FRACTION if settings.crop_fraction is None else settings.crop_fraction,
    )
