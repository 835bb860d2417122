import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from lookaround.data.classification import ClassificationData
from lookaround.data.folder import leaves_test
from lookaround.data.source import Settings
from lookaround.errors import ArgumentError, DataError


def make(root: Path, **options: object) -> ClassificationData:
    return ClassificationData("folder", str(root), **({"image_size": 8, "batch_size": 4} | options))


def sizes(data: ClassificationData) -> list[int | None]:
    parts = (data.splits.train, data.splits.validation, data.splits.test)
    return [None if part is None else len(part.targets) for part in parts]


@pytest.mark.parametrize("name", ["val", "validation", "valid"])
def test_split_tree_is_taken_as_it_is(make_tree, name):
    data = make(make_tree(("train", name, "test"), count=3))
    assert sizes(data) == [6, 6, 6]
    assert data.class_names == ["ant", "bee"]
    images, labels = next(iter(data.val_dataloader()))
    assert images.shape == (4, 3, 8, 8)
    assert labels.tolist() == [0, 0, 0, 1]


def test_validation_is_set_aside_where_there_is_none(make_tree):
    data = make(make_tree(("train",)), validation_fraction=0.2)
    assert sizes(data) == [16, 4, None]
    assert data.splits.validation.targets == (0, 0, 1, 1)
    assert not data.has_test
    assert not set(data.splits.train.paths) & set(data.splits.validation.paths)
    with pytest.raises(DataError, match="the images must have a test part"):
        data.test_dataloader()


def test_images_can_be_held_out_beside_a_validation_folder_which_becomes_the_test(make_tree):
    root = make_tree(("train", "val"))
    data = make(root, hold_out=True, validation_fraction=0.2)
    assert sizes(data) == [16, 4, 20]
    validation, test = data.splits.validation.paths, data.splits.test.paths
    assert all(Path(path).parts[-3] == "train" for path in (*validation, *data.splits.train.paths))
    assert all(Path(path).parts[-3] == "val" for path in test)
    other = make(root, hold_out=True, validation_fraction=0.2, seed=1)
    assert other.splits.validation.paths != validation
    shared = make(root, hold_out=True, validation_fraction=0.2, seed=1, split_seed=0)
    assert shared.splits.validation.paths == validation
    assert shared.splits.test.paths == other.splits.test.paths == test


def test_a_test_folder_stays_the_test_when_images_are_held_out(make_tree):
    data = make(make_tree(("train", "val", "test")), hold_out=True, validation_fraction=0.2)
    assert sizes(data) == [16, 4, 20]
    assert all(Path(path).parts[-3] == "test" for path in data.splits.test.paths)


@pytest.mark.parametrize("parts", [("",), ("train",), ("train", "val"), ("train", "test")])
@pytest.mark.parametrize("hold_out", [False, True])
def test_whether_there_will_be_a_test_is_known_from_the_form(make_tree, parts, hold_out):
    root = make_tree(parts)
    assert leaves_test(Settings(str(root), hold_out=hold_out)) == make(root, hold_out=hold_out).has_test


def test_flat_tree_is_cut_in_three_by_the_seed(make_tree):
    root = make_tree()
    data, again, other = make(root), make(root), make(root, seed=1)
    assert sizes(data) == [16, 2, 2]
    assert data.splits == again.splits
    assert data.splits.validation != other.splits.validation
    assert data.splits.test == other.splits.test


def test_grey_and_colour_are_told_apart(make_tree):
    root = make_tree(mode="L")
    assert make(root).preprocessing.in_channels == 1
    assert make(root, in_channels=3).preprocessing.in_channels == 3
    Image.new("RGB", (9, 9)).save(root / "ant" / "00.png")
    shutil.copy(root / "ant" / "00.png", root / "bee" / "00.png")
    assert make(root, seed=0).preprocessing.in_channels == 3


def test_default_size_is_imagenets(make_tree):
    data = make(make_tree(), image_size=None)
    assert (data.preprocessing.image_size, data.preprocessing.crop_fraction) == (224, 0.875)
    assert data.preprocessing.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("augment", ["none", "shift", "paper"])
def test_training_batches_are_a_function_of_seed_and_epoch(make_tree, augment):
    root = make_tree()
    alone, helped = make(root, augment=augment), make(root, augment=augment, num_workers=2)
    for epoch in (0, 1):
        batches = []
        for data in (alone, helped):
            loader = data.train_dataloader()
            loader.sampler.set_epoch(epoch)
            batches.append(list(loader))
        for (a, b), (c, d) in zip(*batches, strict=True):
            assert torch.equal(a, c)
            assert torch.equal(b, d)


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match=r"root must be a folder that exists; got '.*nowhere'"):
        make(tmp_path / "nowhere").setup()


def test_no_root():
    with pytest.raises(ArgumentError, match="root must name the folder of the images; got None"):
        ClassificationData("folder").setup()


def test_images_without_class_folders(tmp_path):
    Image.new("L", (3, 3)).save(tmp_path / "1.png")
    with pytest.raises(DataError, match="at least two class folders; got 0 in"):
        make(tmp_path).setup()


def test_one_class(make_tree):
    with pytest.raises(DataError, match=r"at least two class folders; got 1 in '.*tree' \('ant'\)"):
        make(make_tree(classes=("ant",))).setup()


def test_empty_class_is_named(make_tree):
    root = make_tree()
    (root / "cat").mkdir()
    (root / "cat" / "notes.txt").write_text("none yet")
    with pytest.raises(DataError, match=r"at least one image; got none in '.*cat'"):
        make(root).setup()


def test_hidden_folders_are_no_classes(make_tree):
    root = make_tree()
    (root / ".cache").mkdir()
    assert make(root).num_classes == 2


def test_validation_class_that_is_not_trained(make_tree):
    root = make_tree(("train", "val"))
    (root / "val" / "ant").rename(root / "val" / "aunt")
    with pytest.raises(
        DataError, match=r"classes of the training images only; got 'aunt'.\nhint: the classes are ant, bee"
    ):
        make(root).setup()


def test_validation_folder_without_training_folder(make_tree):
    with pytest.raises(DataError, match="a folder 'val' must have a folder 'train' beside it"):
        make(make_tree(("training", "val"))).setup()


def test_class_with_one_image_cannot_be_split(make_tree):
    with pytest.raises(DataError, match="class 'ant' has too few; got 1 image"):
        make(make_tree(count=1)).setup()


def break_files(root: Path, number: int = 1) -> None:
    whole = root / "whole.jpg"
    Image.effect_noise((64, 64), 50).save(whole)
    for index in range(number):
        (root / "ant" / f"cut{index}.jpg").write_bytes(whole.read_bytes()[:-500])
    whole.unlink()


def test_broken_files_are_counted_and_named_at_setup(make_tree):
    root = make_tree()
    break_files(root, 7)
    (root / "bee" / "text.png").write_text("no image")
    with pytest.raises(
        DataError, match=r"got 8 of 28 files that cannot.\n  .*cut0\.jpg\n(.|\n)*and 3 more\nhint"
    ):
        make(root).setup()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_broken_file_met_while_loading_is_named_without_a_traceback(make_tree, num_workers):
    root = make_tree()
    break_files(root, 8)
    data = make(root, verify=False, num_workers=num_workers)
    with pytest.raises(DataError, match=r"can be decoded; got '.*cut\d\.jpg'") as caught:
        list(data.train_dataloader())
    assert "Traceback" not in str(caught.value)


def test_broken_file_asked_for_directly(make_tree):
    root = make_tree()
    break_files(root, 8)
    data = make(root, verify=False)
    index = next(i for i, path in enumerate(data.splits.train.paths) if "cut" in path)
    with pytest.raises(DataError, match=r"cut\d\.jpg"):
        data.train_dataloader().dataset[index]
