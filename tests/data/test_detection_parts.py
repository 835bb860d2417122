import shutil

import pytest
from PIL import Image

from coco_files import write_coco
from lookaround.data.detection_parts import BoxSettings, read_coco_parts, read_voc_parts
from lookaround.errors import ArgumentError, DataError

XML = """<annotation><object><name>{}</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>
</bndbox></object></annotation>"""


def settings(root, **options) -> BoxSettings:
    return BoxSettings(str(root), **options)


def names(parts) -> dict[str, list[str]]:
    """The parent folder of every image."""
    return {part: [image.path.split("/")[-2] for image in read.images] for part, read in parts.items()}


def test_coco_with_years_in_its_names(tmp_path):
    for part in ("train2017", "val2017"):
        write_coco(tmp_path, part=part)
    assert names(read_coco_parts(settings(tmp_path))) == {"train": ["train2017"], "val": ["val2017"]}


def test_images_in_a_folder_of_their_own(tmp_path):
    write_coco(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "train").rename(tmp_path / "images" / "train")
    assert names(read_coco_parts(settings(tmp_path))) == {"train": ["train"]}


def test_annotations_beside_the_images(tmp_path):
    for part, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        write_coco(tmp_path / "made", part=part).rename(tmp_path / "moved.json")
        (tmp_path / "made" / part).rename(tmp_path / folder)
        (tmp_path / "moved.json").rename(tmp_path / folder / "_annotations.coco.json")
    shutil.rmtree(tmp_path / "made")
    assert names(read_coco_parts(settings(tmp_path))) == {
        "train": ["train"],
        "val": ["valid"],
        "test": ["test"],
    }


def test_a_single_json_is_for_training(tmp_path):
    write_coco(tmp_path).rename(tmp_path / "annotations.json")
    (tmp_path / "train").rename(tmp_path / "JPEGImages")
    file = tmp_path / "annotations.json"
    file.write_text(file.read_text().replace('"1.png"', '"JPEGImages/1.png"'))
    assert names(read_coco_parts(settings(tmp_path))) == {"train": ["JPEGImages"]}


def test_files_and_folders_can_be_named(tmp_path):
    for part in ("left", "right"):
        write_coco(tmp_path, part=part)
    files = {
        part: f"annotations/instances_{name}.json" for part, name in (("train", "left"), ("val", "right"))
    }
    named = settings(tmp_path, annotation_files=files, image_folders={"train": "left", "val": "left"})
    assert names(read_coco_parts(named)) == {"train": ["left"], "val": ["left"]}


def test_two_files_for_one_part(tmp_path):
    for part in ("train2014", "train2017"):
        write_coco(tmp_path, part=part)
    words = r"one file must hold the annotations of train; got instances_train2014\.json, instances_train2017"
    with pytest.raises(DataError, match=words):
        read_coco_parts(settings(tmp_path))


def test_no_annotations(tmp_path):
    with pytest.raises(DataError, match="COCO annotations of a training part; got 0 other json files in"):
        read_coco_parts(settings(tmp_path))
    with pytest.raises(DataError, match=r"root must be a folder that exists; got '.*nowhere'"):
        read_coco_parts(settings(tmp_path / "nowhere"))
    with pytest.raises(ArgumentError, match="root must name the folder"):
        read_coco_parts(BoxSettings())


def write_voc(folder, *stems: str, name: str = "dog", images: str = "JPEGImages", xml: str = "Annotations"):
    for inner in (images, xml):
        (folder / inner).mkdir(parents=True, exist_ok=True)
    for stem in stems:
        Image.new("RGB", (20, 20)).save(folder / images / f"{stem}.jpg")
        (folder / xml / f"{stem}.xml").write_text(XML.format(name))


def counts(parts) -> dict[str, int]:
    return {part: len(read) for part, read in parts.items()}


def test_voc_lists_say_which_image_is_in_which_part(tmp_path):
    write_voc(tmp_path, "a", "b", "c", "d")
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb 1\n\n")
    (lists / "val.txt").write_text("c\n")
    (lists / "test.txt").write_text("../../d\n")
    parts = read_voc_parts(settings(tmp_path))
    assert counts(parts) == {"train": 2, "val": 1, "test": 1}
    assert parts["val"].images[0].path.endswith("c.jpg")
    (lists / "train.txt").rename(lists / "trainval.txt")
    assert counts(read_voc_parts(settings(tmp_path))) == {"train": 2, "val": 1, "test": 1}


def test_voc_folders_can_be_parts(tmp_path):
    write_voc(tmp_path / "train", "a", "b", images=".", xml=".")
    write_voc(tmp_path / "valid", "c", name="cat", images="images", xml=".")
    parts = read_voc_parts(settings(tmp_path))
    assert counts(parts) == {"train": 2, "val": 1}
    assert parts["train"].categories == parts["val"].categories
    assert len(parts["val"].images[0].labels) == 0  # no cat in training
    assert "1 boxes of an unknown category: dropped (cat in c.xml)" in str(parts["val"].summary)


def test_voc_without_parts_is_for_training(tmp_path):
    write_voc(tmp_path, "a", "b", "c")
    assert counts(read_voc_parts(settings(tmp_path))) == {"train": 3}


def test_voc_without_descriptions(tmp_path):
    with pytest.raises(DataError, match=r"there must be VOC xml files; got none in"):
        read_voc_parts(settings(tmp_path))
    with pytest.raises(ArgumentError, match="annotation_files and image_folders must be left out for 'voc'"):
        read_voc_parts(settings(tmp_path, image_folders={"train": "a"}))
