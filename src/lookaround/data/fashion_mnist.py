"""Fashion-MNIST: 60,000 + 10,000 grey pictures of garments of 28x28 pixels in ten classes.

Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
Learning Algorithms", arXiv 1708.07747.
"""

import gzip
import math
import os
import shutil
import tempfile
import zlib
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lookaround.data.in_memory import LabelledImages, grey_preprocessing
from lookaround.data.source import Settings, Source, Splits, set_aside
from lookaround.errors import DataError, message

CLASS_NAMES = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]
TRAIN_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST_FILES = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
FILES = (*TRAIN_FILES, *TEST_FILES)
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
DEFAULT_ROOT = "data"
# Of the 60,000 training images, scaled to 0 … 1.
MEAN, STD = 0.2860, 0.3530


def prepare(settings: Settings) -> None:
    """Put the four files under ROOT/FashionMNIST/raw, from Debian's package or by download, where missing.

    Raises:
        DataError: none of the three ways led to the files.
    """
    folder = _raw_folder(settings)
    if _complete(folder):
        return
    if all(Path(DEBIAN_FOLDER, f"{name}.gz").is_file() for name in FILES):
        _unpack(DEBIAN_FOLDER, folder)
    else:
        _download(folder, settings.download)


def load(settings: Settings) -> Splits:
    """Return the 10,000 test images as such, and `validation_fraction` of the 60,000 others to validate."""
    folder = _raw_folder(settings)
    if not _complete(folder):
        raise _not_found(folder, "files that are missing")
    rest, test = (_read_pair(folder, names) for names in (TRAIN_FILES, TEST_FILES))
    train, validation = set_aside(rest, settings.validation_fraction, settings.seed, CLASS_NAMES)
    return Splits(train, validation, test, CLASS_NAMES, grey_preprocessing(settings, 28, MEAN, STD))


SOURCE = Source(prepare, load)


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Return the uint8 tensor that an IDX file holds: 0, 0, 8, the number of sizes, the sizes, the bytes.

    Raises:
        DataError: the file is not of this form, or ends early.
    """
    content = path.read_bytes()
    start = 4 + 4 * dimensions
    sizes = np.frombuffer(content[4:start], dtype=">u4").tolist() if len(content) >= start else []
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) != start + math.prod(sizes):
        must = f"the file must be a complete IDX file of bytes with {dimensions} sizes"
        got = f"{str(path)!r} of {len(content)} bytes"
        raise DataError(
            message("fashion_mnist", must, got, hint="delete the file, so that it is fetched anew.")
        )
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8, offset=start).copy()).reshape(sizes)


def _read_pair(folder: Path, names: tuple[str, str]) -> LabelledImages:
    images, labels = read_idx(folder / names[0], 3), read_idx(folder / names[1], 1)
    if len(images) != len(labels) or not len(labels) or int(labels.max()) >= len(CLASS_NAMES):
        must = f"{names[0]} and {names[1]} must hold as many images as labels, of 0 to 9"
        got = f"{len(images)} images and {len(labels)} labels in {str(folder)!r}"
        raise DataError(
            message("fashion_mnist", must, got, hint="delete the files, so that they are fetched anew.")
        )
    return LabelledImages(images[:, None], labels.long())


def _raw_folder(settings: Settings) -> Path:
    return Path(DEFAULT_ROOT if settings.root is None else settings.root, "FashionMNIST", "raw")


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


def _unpack(packed: Path, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                partial = Path(temporary, name)
                with gzip.open(packed / f"{name}.gz") as source, partial.open("wb") as target:
                    shutil.copyfileobj(source, target)
                os.replace(partial, folder / name)
    except (OSError, EOFError, zlib.error) as error:
        raise _not_found(folder, f"{str(packed)!r} that cannot be unpacked there ({error})") from error


def _download(folder: Path, download: bool) -> None:
    if not download:
        raise _not_found(folder, "files that are missing, and download=False")
    from torchvision.datasets import FashionMNIST

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            FashionMNIST(temporary, download=True)
            for name in FILES:
                os.replace(Path(temporary, "FashionMNIST", "raw", name), folder / name)
    except (OSError, EOFError, RuntimeError, HTTPException, zlib.error) as error:
        raise _not_found(folder, f"a download that failed ({_first_line(error)})") from error


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _not_found(folder: Path, got: str) -> DataError:
    must = f"the four files of Fashion-MNIST must be in {str(folder)!r} or be obtainable"
    hint = (
        f"put them there ({', '.join(FILES)}); or install Debian's package dataset-fashion-mnist; "
        "or connect to the internet and set download=True."
    )
    return DataError(message("fashion_mnist", must, got, hint=hint))
