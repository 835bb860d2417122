import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookaround.data.annotations import (
    AnnotatedImage,
    Annotations,
    Box,
    Categories,
    as_finite,
    clean_corners,
    usable_size,
)
from lookaround.data.findings import Findings, Kind, ReadingSummary, joined
from lookaround.data.images import upright_size
from lookaround.errors import DataError

PETS = Categories(("cat", "dog"), (7, 9))


def some(number: int = 3) -> Annotations:
    """Images of which the first has no box, the second one, the third two."""
    images = [
        AnnotatedImage.of(
            n, f"{n}.png", (40, 30), [Box((1.0, 2.0, 5.0, 9.0), 1, 28.0, i == 1) for i in range(n)]
        )
        for n in range(number)
    ]
    findings = Findings()
    findings.add(Kind.NO_IMAGE, "id 5")
    return Annotations.of("here.json", images, PETS, findings)


def test_boxes_are_arrays():
    image = some().images[2]
    assert image.boxes.dtype == np.float64
    assert image.boxes.tolist() == [[1, 2, 5, 9]] * 2
    assert image.labels.tolist() == [1, 1]
    assert image.crowd.tolist() == [False, True]
    empty = some().images[0]
    assert [values.shape for values in (empty.boxes, empty.labels, empty.areas)] == [(0, 4), (0,), (0,)]


def test_a_selection_counts_its_own_images_and_remembers_what_was_wrong():
    chosen = some().select([2, 0])
    assert [image.image_id for image in chosen.images] == [2, 0]
    summary = chosen.summary
    assert (summary.images, summary.empty_images, summary.boxes, summary.crowd_boxes) == (2, 1, 2, 1)
    assert summary.count(Kind.NO_IMAGE) == 1


def test_evaluators_get_ids_from_one():
    document = some().to_coco()
    assert [entry["id"] for entry in document["annotations"]] == [1, 2, 3]
    assert {entry["category_id"] for entry in document["annotations"]} == {9}
    assert [entry["iscrowd"] for entry in document["annotations"]] == [0, 0, 1]


def test_evaluators_understand_it(tmp_path):
    from faster_coco_eval import COCO, COCOeval_faster

    truth = COCO(some().to_coco())
    found = [{"image_id": n, "category_id": 9, "bbox": [1, 2, 4, 7], "score": 0.9} for n in (1, 2)]
    evaluation = COCOeval_faster(truth, truth.loadRes(found), "bbox", print_function=lambda *_: None)
    evaluation.run()
    assert evaluation.stats[0] == pytest.approx(1)


def test_no_images_are_refused():
    with pytest.raises(DataError, match="at least one image that can be used; got none in 'here'"):
        Annotations.of("here", [], PETS, Findings())


def test_the_summary_as_text():
    summary = some().summary
    assert str(summary).splitlines() == [
        "here.json: 3 images (1 without boxes), 3 boxes (1 crowd)",
        "  1 boxes with an image id that no image has: dropped (id 5)",
    ]
    other = ReadingSummary("there", 1, 0, 1, 0)
    assert joined([summary, other]).splitlines()[2] == "there: 1 images (0 without boxes), 1 boxes (0 crowd)"


def test_examples_are_few_and_short():
    findings = Findings()
    for index in range(1000):
        findings.add(Kind.NO_AREA, f"{index} {'x' * 500}")
    (found,) = findings.listed()
    assert found.count == 1000
    assert len(found.examples) == 3
    assert len(str(found)) < 500
    assert str(found).endswith(", …)")


@pytest.mark.parametrize(
    ("corners", "inside"),
    [
        ((0, 0, 40, 30), (0, 0, 40, 30)),
        ((-1, -1, 41, 31), (0, 0, 40, 30)),
        ((39.95, 0, 45, 5), None),
        ((-5, -5, 0.05, 3), None),
        ((5, 5, 5.05, 9), None),
        ((5, 5, 5.15, 9), (5, 5, 5.15, 9)),
    ],
)
def test_corners_end_up_inside(corners, inside):
    assert clean_corners(corners, (40, 30), "here", Findings()) == inside


def test_numbers_are_told_from_what_looks_like_them():
    assert [as_finite(value) for value in (1, 2.5, -0.0)] == [1, 2.5, 0]
    assert {as_finite(value) for value in (True, "1", None, [1], float("nan"), float("inf"), 10**400)} == {
        None
    }


@pytest.mark.parametrize("verify", [True, False])
def test_the_size_of_a_file(tmp_path: Path, verify: bool):
    findings = Findings()
    path = tmp_path / "1.png"
    Image.new("L", (7, 5)).save(path)
    assert usable_size(path, None, verify, findings) == (7, 5)
    assert usable_size(path, (7, 5), verify, findings) == (7, 5)
    assert usable_size(tmp_path, (7, 5), verify, findings) is None
    path.write_text("no image")
    assert usable_size(path, None, verify, findings) is None
    assert [found.kind for found in findings.listed()] == [Kind.MISSING_FILE, Kind.UNREADABLE_FILE]


def test_the_upright_size_without_decoding(tmp_path):
    exif = Image.Exif()
    for orientation, size in ((1, (7, 5)), (3, (7, 5)), (6, (5, 7)), (8, (5, 7))):
        exif[0x0112] = orientation
        Image.new("L", (7, 5)).save(tmp_path / "1.jpg", exif=exif)
        assert upright_size(tmp_path / "1.jpg") == size
    (tmp_path / "1.jpg").write_text("no image")
    with pytest.raises(DataError, match="upright_size: the file must be an image that can be decoded"):
        upright_size(tmp_path / "1.jpg")


def test_every_kind_of_fault_is_described():
    page = Path(__file__).parents[2] / "docs" / "detection_data.md"
    section = page.read_text().partition("## What is wrong with a set")[2]
    rows = re.findall(r"^\| (.*?) \| (\w+) \|$", section, re.MULTILINE)
    assert rows == [(kind.what, kind.outcome) for kind in Kind]
