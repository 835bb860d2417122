import copy
import json
import random

import numpy as np
import pytest
from PIL import Image

from coco_files import CATEGORIES, annotation, image, write_coco
from lookaround.data.annotations import Annotations, Categories
from lookaround.data.coco import as_id, read_coco
from lookaround.data.findings import Kind
from lookaround.errors import DataError


def read(root, verify: bool = True, **lists) -> Annotations:
    return read_coco(write_coco(root, **lists), root / "train", verify=verify)


def found(annotations: Annotations) -> dict[Kind, int]:
    return {finding.kind: finding.count for finding in annotations.summary.findings}


def test_boxes_become_corners_and_ids_with_gaps_become_labels(tmp_path):
    boxes = [annotation(), annotation(2, category_id=90, bbox=[0.5, 1, 4.25, 2], area=7.5)]
    (one,) = read(tmp_path, annotations=boxes).images
    assert one.boxes.tolist() == [[2, 3, 12, 11], [0.5, 1, 4.75, 3]]
    assert one.labels.tolist() == [0, 1]
    assert one.areas.tolist() == [50, 7.5]
    assert (one.image_id, one.width, one.height) == (1, 40, 30)
    assert one.path == str(tmp_path / "train" / "1.png")


def test_labels_lead_back_to_the_ids_and_names(tmp_path):
    read_ = read(tmp_path, annotations=[annotation(category_id=90)])
    assert read_.categories == Categories(("ant", "bee"), (3, 90))
    written = read_.to_coco()
    assert written["annotations"] == [
        {"id": 1, "image_id": 1, "category_id": 90, "bbox": [2, 3, 10, 8], "area": 50, "iscrowd": 0}
    ]
    assert written["categories"] == [{"id": 3, "name": "ant"}, {"id": 90, "name": "bee"}]
    assert written["images"] == [{"id": 1, "file_name": "1.png", "width": 40, "height": 30}]
    assert json.loads(json.dumps(written)) == written


def test_images_without_boxes_are_kept(tmp_path):
    read_ = read(tmp_path, images=[image(1), image(2)])
    assert [len(entry.labels) for entry in read_.images] == [1, 0]
    assert read_.images[1].boxes.shape == (0, 4)
    assert (read_.summary.images, read_.summary.empty_images, read_.summary.boxes) == (2, 1, 1)


def test_crowds_are_marked_and_run_lengths_passed_over(tmp_path):
    mask = {"counts": [0, 5, 1195], "size": [30, 40]}
    packed = {"counts": "PPYo1", "size": [30, 40]}
    boxes = [
        annotation(iscrowd=1, segmentation=mask),
        annotation(2, segmentation=[[1, 2, 3, 4, 5, 6]]),
        annotation(3, segmentation=packed),
    ]
    read_ = read(tmp_path, annotations=boxes)
    assert read_.images[0].crowd.tolist() == [True, False, False]
    assert read_.summary.crowd_boxes == 1
    assert found(read_) == {}


BAD_BOXES = {
    "zero width": ([5, 5, 0, 4], Kind.NO_AREA),
    "negative height": ([5, 5, 4, -4], Kind.NO_AREA),
    "thin": ([5, 5, 0.01, 4], Kind.NO_AREA),
    "nan": ([5, 5, float("nan"), 4], Kind.NOT_FINITE),
    "inf": ([5, float("inf"), 4, 4], Kind.NOT_FINITE),
    "sum beyond floats": ([1.7e308, 5, 1.7e308, 4], Kind.NOT_FINITE),
    "whole number beyond floats": ([10**400, 5, 4, 4], Kind.NOT_FINITE),
    "three numbers": ([5, 5, 4], Kind.NOT_FINITE),
    "text": (["5", 5, 4, 4], Kind.NOT_FINITE),
    "true": ([True, 5, 4, 4], Kind.NOT_FINITE),
    "null": (None, Kind.NOT_FINITE),
    "mapping": ({"x": 1}, Kind.NOT_FINITE),
    "right of the image": ([40, 5, 4, 4], Kind.OUTSIDE_IMAGE),
    "above the image": ([5, -9, 4, 4], Kind.OUTSIDE_IMAGE),
}


@pytest.mark.parametrize("name", BAD_BOXES)
def test_bad_boxes_are_dropped_and_counted(tmp_path, name):
    sides, kind = BAD_BOXES[name]
    read_ = read(tmp_path, annotations=[annotation(7, bbox=sides), annotation(8)])
    assert read_.images[0].boxes.tolist() == [[2, 3, 12, 11]]
    assert found(read_) == {kind: 1}
    assert f"1 {kind.what}: dropped (id 7 of image 1)" in str(read_.summary)


def test_boxes_over_the_border_are_clipped(tmp_path):
    boxes = [annotation(1, bbox=[-5, 20, 20, 20]), annotation(2, bbox=[30, 10, 10.5, 5], area=0)]
    read_ = read(tmp_path, annotations=boxes)
    assert read_.images[0].boxes.tolist() == [[0, 20, 15, 30], [30, 10, 40, 15]]
    assert found(read_) == {Kind.CLIPPED: 1}  # half a pixel is rounding
    assert read_.images[0].areas.tolist() == [50, 50]


BAD_ENTRIES = {
    "no image": (annotation(7, image_id=99), Kind.NO_IMAGE),
    "image id is text": (annotation(7, image_id="1"), Kind.NO_IMAGE),
    "unknown category": (annotation(7, category_id=4), Kind.UNKNOWN_CATEGORY),
    "category is a list": (annotation(7, category_id=[3]), Kind.UNKNOWN_CATEGORY),
    "category is missing": ({"id": 7, "image_id": 1, "bbox": [1, 1, 4, 4]}, Kind.UNKNOWN_CATEGORY),
    "not a mapping": ([7], Kind.BAD_ANNOTATION),
    "the same again": (annotation(1), Kind.REPEATED_ANNOTATION),
}


@pytest.mark.parametrize("name", BAD_ENTRIES)
def test_bad_annotations_are_dropped_and_counted(tmp_path, name):
    entry, kind = BAD_ENTRIES[name]
    read_ = read(tmp_path, annotations=[annotation(1), entry])
    assert len(read_.images[0].labels) == 1
    assert found(read_) == {kind: 1}


def test_boxes_that_share_an_id_are_kept(tmp_path):
    read_ = read(tmp_path, annotations=[annotation(1), annotation(1, bbox=[5, 5, 5, 5])])
    assert len(read_.images[0].labels) == 2
    assert found(read_) == {Kind.REPEATED_ANNOTATION_ID: 1}


BAD_IMAGES = {
    "without a file": (image(2, file_name="folder/2.png"), Kind.MISSING_FILE),
    "the id again": (image(1, file_name="other.png"), Kind.REPEATED_IMAGE_ID),
    "no id": ({"file_name": "2.png"}, Kind.BAD_IMAGE_ENTRY),
    "id is text": (image(2, id="2"), Kind.BAD_IMAGE_ENTRY),
    "no name": ({"id": 2}, Kind.BAD_IMAGE_ENTRY),
    "empty name": (image(2, file_name=""), Kind.BAD_IMAGE_ENTRY),
    "not a mapping": ("2.png", Kind.BAD_IMAGE_ENTRY),
    "above the folder": (image(2, file_name="../2.png"), Kind.OUTSIDE_FOLDER),
    "backslashes above the folder": (image(2, file_name="..\\..\\2.png"), Kind.OUTSIDE_FOLDER),
    "absolute": (image(2, file_name="/etc/passwd"), Kind.OUTSIDE_FOLDER),
    "another size": (image(2, width=41), Kind.OTHER_SIZE),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_images_are_dropped_and_counted(tmp_path, name):
    entry, kind = BAD_IMAGES[name]
    read_ = read(tmp_path, images=[image(1), entry])
    assert [one.image_id for one in read_.images] == [1]
    assert found(read_) == {kind: 1}
    assert f"1 {kind.what}: dropped" in str(read_.summary)


def test_a_null_byte_in_a_name_is_no_crash(tmp_path):
    file = write_coco(tmp_path)
    file.write_text(file.read_text().replace('"1.png"', '"1\\u0000.png"'))
    with pytest.raises(
        DataError, match=r"at least one image that can be used; .*\n  1 images without a file"
    ):
        read_coco(file, tmp_path / "train")


def test_boxes_of_dropped_images_are_counted_apart(tmp_path):
    images = [image(1), image(2, file_name="far/2.png")]
    read_ = read(tmp_path, images=images, annotations=[annotation(1), annotation(2, image_id=2)])
    assert found(read_) == {Kind.MISSING_FILE: 1, Kind.IMAGE_DROPPED: 1}


def test_broken_files_are_found_by_looking(tmp_path):
    file = write_coco(tmp_path, images=[image(1), image(2), image(3)])
    (tmp_path / "train" / "2.png").write_text("no image")
    whole = (tmp_path / "train" / "3.png").read_bytes()
    (tmp_path / "train" / "3.png").write_bytes(whole[:-20])
    read_ = read_coco(file, tmp_path / "train")
    assert [one.image_id for one in read_.images] == [1]
    assert found(read_) == {Kind.UNREADABLE_FILE: 2}
    assert len(read_coco(file, tmp_path / "train", verify=False)) == 3


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("said", [{"width": None}, {"height": 0}, {"width": "40"}])
def test_sizes_that_are_not_told_are_looked_up(tmp_path, said, verify):
    read_ = read(tmp_path, verify=verify, images=[image(1, **said)])
    assert (read_.images[0].width, read_.images[0].height) == (40, 30)


def test_the_size_is_that_of_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = write_coco(tmp_path, images=[image(1, file_name="1.jpg", width=30, height=40)])
    Image.new("RGB", (40, 30)).save(tmp_path / "train" / "1.jpg", exif=exif)
    assert read_coco(file, tmp_path / "train").images[0].height == 40


def test_the_folder_that_holds_the_files_is_chosen(tmp_path):
    file = write_coco(tmp_path)
    (tmp_path / "images").mkdir()
    folders = [tmp_path / "images", tmp_path / "none", tmp_path / "train"]
    assert read_coco(file, folders).images[0].path == str(tmp_path / "train" / "1.png")


def test_a_mark_of_byte_order_is_no_fault(tmp_path):
    file = write_coco(tmp_path)
    file.write_text(file.read_text(), encoding="utf-8-sig")
    assert len(read_coco(file, tmp_path / "train")) == 1


def test_ids_may_be_whole_floats():
    assert [as_id(value) for value in (3.0, 2**53 + 1, 2.5, True, None, "1", 2**64, float("nan"))] == [
        3,
        2**53 + 1,
        *[None] * 6,
    ]


NOT_COCO = {
    "no json": ("{", "must be a JSON file that can be read"),
    "deep": ("[" * 100_000, "must be a JSON file that can be read"),
    "a list": ("[]", "must hold the lists images, annotations, categories; got .* with a list"),
    "a number": ("3", "with a int"),
    "other entries": ('{"info": 1, "images": []}', "with images, info.\nhint: use an instances file"),
    "nothing": ("{}", "with nothing"),
    "a mapping for a list": ('{"images": {}, "annotations": [], "categories": []}', "must hold the lists"),
}


@pytest.mark.parametrize("name", NOT_COCO)
def test_what_is_not_coco_is_refused(tmp_path, name):
    text, words = NOT_COCO[name]
    file = tmp_path / "instances.json"
    file.write_text(text)
    with pytest.raises(DataError, match=words):
        read_coco(file, tmp_path)


def test_a_file_that_is_not_text_or_not_there(tmp_path):
    (tmp_path / "binary.json").write_bytes(bytes(range(256)))
    for name in ("binary.json", "nowhere.json"):
        with pytest.raises(DataError, match=rf"JSON file that can be read; got '.*{name}'.\n  reason: "):
            read_coco(tmp_path / name, tmp_path)


@pytest.mark.parametrize(
    ("categories", "words"),
    [
        ([], "there must be at least one category; got none"),
        ([{"name": "ant"}], "every category must have a whole number as its id; got {'name': 'ant'}"),
        (["ant"], "every category must have a whole number as its id; got 'ant'"),
        ([{"id": 1, "name": "ant"}, {"id": 1, "name": "bee"}], "one name; got 1 for 'ant' and 'bee'"),
    ],
)
def test_categories_that_say_nothing_are_refused(tmp_path, categories, words):
    with pytest.raises(DataError, match=words):
        read(tmp_path, categories=categories)


def test_a_category_listed_twice_is_one(tmp_path):
    read_ = read(tmp_path, categories=[*CATEGORIES, CATEGORIES[0]])
    assert read_.categories.ids == (3, 90)
    assert found(read_) == {Kind.REPEATED_CATEGORY: 1}


def test_another_part_has_the_labels_of_training(tmp_path):
    known = Categories(("ant", "cat"), (3, 50))
    boxes = [annotation(1), annotation(2, category_id=90)]
    file = write_coco(tmp_path, annotations=boxes)
    read_ = read_coco(file, tmp_path / "train", known)
    assert read_.categories == known
    assert read_.images[0].labels.tolist() == [0]
    assert found(read_) == {Kind.UNKNOWN_CATEGORY: 1}


def test_ids_that_mean_something_else_in_training_are_refused(tmp_path):
    file = write_coco(tmp_path)
    with pytest.raises(DataError, match=r"same in every part; .*\n  id 3: 'ant' here, 'cat' in training"):
        read_coco(file, tmp_path / "train", Categories(("cat",), (3,)))


def test_a_set_without_a_usable_image_is_refused_with_the_reasons(tmp_path):
    with pytest.raises(DataError, match=r"at least one image .*\n  1 images without a file: dropped \(.*x/"):
        read(tmp_path, images=[image(1, file_name="x/1.png")])


def test_the_summary_counts_and_names(tmp_path):
    boxes = [annotation(number, bbox=[1, 1, 0, 0]) for number in range(5)]
    summary = read(tmp_path, images=[image(1), image(2)], annotations=[*boxes, annotation(9)]).summary
    assert str(summary).splitlines() == [
        f"{tmp_path}/annotations/instances_train.json: 2 images (1 without boxes), 1 boxes (0 crowd)",
        "  5 boxes of zero or negative size: dropped (id 0 of image 1, id 1 of image 1, id 2 of image 1, …)",
    ]
    assert (summary.count(Kind.NO_AREA), summary.count(Kind.CLIPPED)) == (5, 0)


ODD = [
    None,
    True,
    -1,
    0,
    3,
    2**70,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "1.png",
    [],
    [1],
    {},
    {"id": 1},
]


def paths_of(value, path=()):
    """Every place in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from paths_of(inner, (*path, key))


def test_damaged_documents_give_clean_boxes_or_a_data_error(tmp_path):
    file = write_coco(tmp_path, [image(1), image(2)], [annotation(1), annotation(2, 2, category_id=90)])
    whole = json.loads(file.read_text())
    places = list(paths_of(whole))
    numbers = random.Random(0)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(300):
        document = copy.deepcopy(whole)
        for path in numbers.sample(places, numbers.choice([1, 1, 3])):
            holder = document
            try:
                for key in path[:-1]:
                    holder = holder[key]
                holder[path[-1]] = copy.deepcopy(numbers.choice(ODD))
            except (KeyError, IndexError, TypeError):
                continue  # an earlier change took the place away
        file.write_text(json.dumps(document))
        try:
            read_ = read_coco(file, tmp_path / "train")
        except DataError:
            outcomes["refused"] += 1
            continue
        outcomes["read"] += 1
        for one in read_.images:
            assert np.isfinite(one.boxes).all()
            assert (one.boxes[:, 2:] > one.boxes[:, :2]).all()
            assert ((one.boxes >= 0) & (one.boxes <= [40, 30, 40, 30])).all()
            assert ((one.labels >= 0) & (one.labels < len(read_.categories.ids))).all()
            assert (one.areas > 0).all()
    assert min(outcomes.values()) > 20
