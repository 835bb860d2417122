import gzip
import struct
from pathlib import Path

import pytest
import torch
import torchvision.datasets

from lookaround.data import fashion_mnist
from lookaround.data.classification import ClassificationData
from lookaround.errors import DataError


def idx(values: torch.Tensor) -> bytes:
    sizes = struct.pack(f">{values.ndim}I", *values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + values.numpy().tobytes()


def files() -> dict[str, bytes]:
    generator = torch.Generator().manual_seed(0)
    content = {}
    for names, number in ((fashion_mnist.TRAIN_FILES, 40), (fashion_mnist.TEST_FILES, 20)):
        images = torch.randint(256, (number, 28, 28), dtype=torch.uint8, generator=generator)
        content[names[0]] = idx(images)
        content[names[1]] = idx((torch.arange(number) % 10).to(torch.uint8))
    return content


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "packages"
    folder.mkdir()
    for name, content in files().items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", folder)
    return folder


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "nowhere")


def make(tmp_path: Path, **options: object) -> ClassificationData:
    return ClassificationData("fashion_mnist", str(tmp_path / "root"), batch_size=10, **options)


def raw(tmp_path: Path) -> Path:
    return tmp_path / "root" / "FashionMNIST" / "raw"


@pytest.mark.usefixtures("debian")
def test_debians_files_are_unpacked_and_served(tmp_path):
    data = make(tmp_path, download=False, validation_fraction=0.25)
    data.setup()
    assert data.class_names[9] == "Ankle boot"
    assert [len(part.targets) for part in (data.splits.train, data.splits.validation, data.splits.test)] == [
        30,
        10,
        20,
    ]
    assert sorted(data.splits.validation.targets) == list(range(10))
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (10, 1, 28, 28)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert sorted(path.name for path in raw(tmp_path).iterdir()) == sorted(fashion_mnist.FILES)


def test_files_under_the_root_come_first(tmp_path, nothing):
    raw(tmp_path).mkdir(parents=True)
    for name, content in files().items():
        (raw(tmp_path) / name).write_bytes(content)
    data = make(tmp_path, download=False)
    assert data.num_classes == 10
    assert data.preprocessing.image_size == 28


def test_pixels_are_normalised_by_the_sets_numbers(tmp_path, debian):
    data = make(tmp_path, download=False)
    images, _ = next(iter(data.test_dataloader()))
    expected = data.splits.test.images[:10].float() / 255
    torch.testing.assert_close(images, (expected - fashion_mnist.MEAN) / fashion_mnist.STD)


def test_download_goes_through_a_temporary_folder(tmp_path, nothing, monkeypatch):
    def download(root: str, download: bool) -> None:
        folder = Path(root, "FashionMNIST", "raw")
        folder.mkdir(parents=True)
        for name, content in files().items():
            (folder / name).write_bytes(content)

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", download)
    assert make(tmp_path).num_classes == 10
    assert sorted(path.name for path in raw(tmp_path).iterdir()) == sorted(fashion_mnist.FILES)


WAYS = r"(.|\n)*put them there(.|\n)*dataset-fashion-mnist(.|\n)*download=True"


def test_no_way_left_names_all_three(tmp_path, nothing):
    with pytest.raises(DataError, match="must be in .* or be obtainable; got files that are missing" + WAYS):
        make(tmp_path, download=False).setup()


def test_failed_download_names_all_three_ways_and_leaves_nothing(tmp_path, nothing, monkeypatch):
    def fail(root: str, download: bool) -> None:
        Path(root, "half").write_text("half")
        raise RuntimeError("Error downloading\nat length")

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", fail)
    with pytest.raises(DataError, match=r"a download that failed \(Error downloading\)" + WAYS):
        make(tmp_path).setup()
    assert list(raw(tmp_path).iterdir()) == []


def test_broken_package_file_leaves_nothing_half_written(tmp_path, debian):
    path = debian / f"{fashion_mnist.FILES[0]}.gz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"that cannot be unpacked there \(.*\)" + WAYS):
        make(tmp_path, download=False).setup()
    assert list(raw(tmp_path).iterdir()) == []


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-1], lambda c: b"junk" + c[4:], lambda c: c[:3], lambda c: b""]
)
def test_broken_idx_file_is_named(tmp_path, nothing, damage):
    raw(tmp_path).mkdir(parents=True)
    for name, content in files().items():
        (raw(tmp_path) / name).write_bytes(damage(content) if name == fashion_mnist.FILES[2] else content)
    with pytest.raises(
        DataError, match=r"complete IDX file of bytes with 3 sizes; got '.*t10k-images.*hint|(.|\n)*delete"
    ):
        make(tmp_path).setup()


def test_labels_that_do_not_fit_the_images(tmp_path, nothing):
    raw(tmp_path).mkdir(parents=True)
    for name, content in files().items():
        labels = torch.full((40,), 10, dtype=torch.uint8)
        (raw(tmp_path) / name).write_bytes(idx(labels) if name == fashion_mnist.FILES[1] else content)
    with pytest.raises(DataError, match="as many images as labels, of 0 to 9; got 40 images and 40 labels"):
        make(tmp_path).setup()
