import logging
import re

import numpy as np
import pytest
import torch
from PIL import Image

from coco_files import annotation, image, write_coco
from lookaround.data.detection import DetectionData
from lookaround.data.detection_dataset import to_original
from lookaround.errors import ArgumentError, DataError, UnknownNameError


def make_root(tmp_path, number: int = 6, parts=("train", "val", "test"), **lists):
    """A set whose every image has noise of its own and two boxes, the second one a crowd."""
    for part in parts:
        boxes = []
        for index in range(1, number + 1):
            boxes.append(annotation(2 * index, index, bbox=[index, 2, 10, 8]))
            boxes.append(annotation(2 * index + 1, index, bbox=[20, 10, 8, 12], category_id=90, iscrowd=1))
        entries = {"images": [image(index) for index in range(1, number + 1)], "annotations": boxes} | lists
        write_coco(tmp_path, part=part, **entries)
        for index, path in enumerate(sorted((tmp_path / part).glob("*.png"))):
            noise = np.random.default_rng(index).integers(0, 256, (30, 40, 3), dtype=np.uint8)
            Image.fromarray(noise).save(path)
    return tmp_path


def make(root, dataset: str = "coco", **options) -> DetectionData:
    options = {"batch_size": 2, "image_size": 40} | options
    return DetectionData(dataset, str(root), **options)


def same(first, second) -> bool:
    """Whether two batches are equal bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(first[0], second[0], strict=True)) and all(
        a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
        for a, b in zip(first[1], second[1], strict=True)
    )


def test_batches_are_lists_of_images_and_targets(tmp_path):
    data = make(make_root(tmp_path))
    images, targets = next(iter(data.val_dataloader()))
    assert [tuple(one.shape) for one in images] == [(3, 30, 40)] * 2
    assert images[0].dtype == torch.float32
    target = targets[1]
    assert target["boxes"].tolist() == [[2, 2, 12, 10], [20, 10, 28, 22]]
    assert target["labels"].tolist() == [0, 1]
    assert target["image_id"].item() == 2
    assert target["area"].tolist() == [50, 50]
    assert target["iscrowd"].tolist() == [0, 1]
    assert target["original_size"].tolist() == [30, 40]
    kinds = {key: value.dtype for key, value in target.items()}
    floats = {"boxes": torch.float32, "area": torch.float32}
    assert kinds == {key: floats.get(key, torch.int64) for key in target}


def test_what_a_network_needs_to_know(tmp_path):
    data = make(make_root(tmp_path))
    assert (data.num_classes, data.class_names, data.category_ids) == (2, ["ant", "bee"], [3, 90])
    assert data.preprocessing.image_size == 40
    assert data.preprocessing.mean == (0.485, 0.456, 0.406)
    assert make(tmp_path, in_channels=1).preprocessing.mean == (0.449,)
    assert next(iter(make(tmp_path, in_channels=1).val_dataloader()))[0][0].shape == (1, 30, 40)
    assert make(tmp_path, image_size=None).preprocessing.image_size == 640
    assert make(tmp_path, "scenes", image_size=None).preprocessing.image_size == 40


def test_images_are_normalised(tmp_path):
    data = make(make_root(tmp_path))
    shown = next(iter(data.val_dataloader()))[0][0]
    pixels = np.asarray(Image.open(tmp_path / "val" / "1.png")) / 255
    mean, std = (np.array(values) for values in (data.preprocessing.mean, data.preprocessing.std))
    assert shown.permute(1, 2, 0).numpy() == pytest.approx((pixels - mean) / std, abs=1e-5)


def test_crowds_are_not_trained_on(tmp_path):
    for _, targets in make(make_root(tmp_path)).train_dataloader():
        for target in targets:
            assert target["labels"].tolist() == [0]
            assert target["iscrowd"].tolist() == [0]
            assert target["boxes"].shape == (1, 4)


def test_images_without_boxes_are_served(tmp_path):
    data = make(make_root(tmp_path, annotations=[]), augment="paper")
    for loader in (data.train_dataloader(), data.val_dataloader()):
        for _, targets in loader:
            assert all(target["boxes"].shape == (0, 4) for target in targets)
            assert all(target["labels"].dtype == torch.int64 for target in targets)


def test_resized_boxes_lead_back_to_the_file(tmp_path):
    data = make(make_root(tmp_path), image_size=80)
    images, targets = next(iter(data.val_dataloader()))
    assert images[0].shape == (3, 60, 80)
    assert targets[0]["boxes"][0].tolist() == [2, 4, 22, 20]
    assert targets[0]["area"].tolist() == [200, 200]
    assert to_original(targets[0]["boxes"], images[0], targets[0])[0].tolist() == [1, 2, 11, 10]
    first = data.annotations("val").to_coco()["annotations"][0]
    assert (first["bbox"], first["area"], first["category_id"]) == ([1, 2, 10, 8], 50, 3)


@pytest.mark.parametrize("augment", ["none", "flip", "paper"])
def test_batches_are_a_function_of_seed_and_epoch_whatever_the_workers(tmp_path, augment):
    root = make_root(tmp_path, parts=("train", "val"))
    seen = []
    for options in ({}, {"num_workers": 2}, {"seed": 1}):
        loader = make(root, augment=augment, **options).train_dataloader()
        epochs = []
        for epoch in (0, 1):
            loader.sampler.set_epoch(epoch)
            epochs.append(list(loader))
        seen.append(epochs)
    alone, helped, other = seen
    for epoch in (0, 1):
        assert all(same(a, b) for a, b in zip(alone[epoch], helped[epoch], strict=True))
        assert not all(same(a, b) for a, b in zip(alone[epoch], other[epoch], strict=True))
    assert not all(same(a, b) for a, b in zip(alone[0], alone[1], strict=True))


def test_drawing_leaves_the_callers_generator_alone(tmp_path):
    data = make(make_root(tmp_path), augment="paper")
    before = torch.get_rng_state()
    list(data.train_dataloader())
    assert torch.equal(torch.get_rng_state(), before)


def test_an_interrupted_epoch_goes_on(tmp_path):
    root = make_root(tmp_path)
    whole = list(make(root, augment="paper").train_dataloader())
    loader = make(root, augment="paper").train_dataloader()
    loader.load_state_dict({"epoch": 0, "position": 1})
    assert all(same(a, b) for a, b in zip(whole[1:], loader, strict=True))


def test_validation_is_set_aside_where_there_is_none(tmp_path):
    root = make_root(tmp_path, 10, parts=("train",))
    data, other = make(root, validation_fraction=0.3), make(root, validation_fraction=0.3, seed=1)
    ids = [{one.image_id for one in data.parts[part].images} for part in ("train", "val")]
    assert [len(part) for part in ids] == [7, 3]
    assert not ids[0] & ids[1]
    assert ids[1] != {one.image_id for one in other.parts["val"].images}
    assert not data.has_test
    with pytest.raises(
        DataError, match=r"the images must have a test part; got '.*'.\nhint: add annotations"
    ):
        data.test_dataloader()


def test_a_single_image_cannot_be_shared(tmp_path):
    with pytest.raises(DataError, match="at least two images where a part is set aside; got 1 in"):
        make(make_root(tmp_path, 1, parts=("train",)), batch_size=1).setup()


def test_what_was_wrong_is_logged_once(tmp_path, caplog):
    root = make_root(tmp_path)
    (root / "train" / "1.png").write_text("no image")
    data = make(root)
    with caplog.at_level(logging.INFO):
        data.setup("fit")
        data.setup("test")
        list(data.train_dataloader())
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == str(data.summary)
    assert "1 images whose file cannot be read: dropped" in record.getMessage()
    assert "2 boxes of images that were dropped: dropped" in record.getMessage()
    assert sum(line.endswith("crowd)") for line in str(data.summary).splitlines()) == 3


def test_a_clean_set_is_no_warning(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        make(make_root(tmp_path)).setup()
    assert [record.levelno for record in caplog.records] == [logging.INFO]


def complaint_of(loader) -> str:
    """What a loader ends with; the error is let go, for kept in a cycle it would hold the workers' queues."""
    try:
        list(loader)
    except DataError as error:
        return str(error)
    return "none"


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_file_that_breaks_later_is_named_without_a_traceback(tmp_path, num_workers):
    data = make(make_root(tmp_path), num_workers=num_workers)
    data.setup()
    (tmp_path / "train" / "4.png").write_text("no image")
    complaint = complaint_of(data.train_dataloader())
    assert re.search(r"can be decoded; got '.*4\.png'", complaint)
    assert "Traceback" not in complaint


def test_an_image_of_another_size_met_while_loading(tmp_path):
    data = make(make_root(tmp_path), verify=False)
    Image.new("RGB", (41, 30)).save(tmp_path / "val" / "1.png")
    with pytest.raises(DataError, match=r"size of its description, 40x30; got 41x30 in '.*1\.png'"):
        list(data.val_dataloader())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"num_workers": -1}, "num_workers must be at least 0; got -1"),
        ({"validation_fraction": 1.0}, "validation_fraction must be greater than 0 and less than 1; got 1.0"),
        ({"in_channels": 2}, r"in_channels must be 1 \(grey\), 3 \(RGB\) or None; got 2"),
        ({"image_size": 0}, "image_size must be a whole number >= 1; got 0"),
        (
            {"augment": "flips"},
            "augment must be a known augmentation; got 'flips'.\nhint: did you mean 'flip'",
        ),
        ({"jitter": (2.0, 1.0)}, "jitter must be two scales above 0"),
        (
            {"dataset": "cocoo"},
            r"known kind of set; got 'cocoo'.\nhint: did you mean 'coco'\? Known: scenes,",
        ),
        ({"annotation_files": {"vall": "a.json"}}, "must name parts; got 'vall'.\nhint: did you mean 'val'"),
        ({"image_folders": {"": "a"}}, "must name parts; got ''"),
        ({"annotation_files": {"val": "a.json"}}, "must name a file for 'train'"),
    ],
)
def test_bad_arguments(options, words):
    with pytest.raises(ArgumentError, match=words):
        make("nowhere", **options)


def test_batch_larger_than_the_training_set(tmp_path):
    with pytest.raises(ArgumentError, match=r"batch_size must be at most .*, 6; got 7.\nhint: try 1"):
        make(make_root(tmp_path), batch_size=7).setup()


def test_an_unknown_part(tmp_path):
    with pytest.raises(UnknownNameError, match="part must be a part of the set; got 'vall'"):
        make(make_root(tmp_path)).annotations("vall")


def test_a_trainer_can_drive_it(tmp_path):
    import lightning.pytorch as pl

    class Counter(pl.LightningModule):
        seen = 0

        def training_step(self, batch, index):
            self.seen += len(batch[0]) + sum(len(target["boxes"]) for target in batch[1])

        def validation_step(self, batch, index):
            self.seen += len(batch[0])

        def configure_optimizers(self):
            return None

    counter = Counter()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, num_sanity_val_steps=0, enable_checkpointing=False, **quiet
    )
    trainer.fit(counter, make(make_root(tmp_path)))
    assert counter.seen == 6 + 6 + 6


def test_scenes_that_were_not_written_name_the_command(tmp_path):
    hint = r"hint: write some: lookaround data scenes --out "
    with pytest.raises(DataError, match=rf"root must be a folder that exists; .*\n{hint}"):
        make(tmp_path / "none", "scenes").setup()
    with pytest.raises(DataError, match=rf"root must be a folder of scenes; .*\n{hint}"):
        make(tmp_path, "scenes").setup()
    with pytest.raises(ArgumentError, match="root must name the folder of images and annotations; got None"):
        DetectionData("scenes").setup()
