"""COCO's figures: by hand where that is easy, against pycocotools where it is not."""

import math

import numpy as np
import pytest
import torch

from lookaround.tasks.coco_metrics import FIGURES, OVERLAPS, RECALLS, as_detections, score_detections

CATEGORIES = [{"id": 90, "name": "bee"}, {"id": 3, "name": "ant"}, {"id": 17, "name": "none of them"}]


def true_box(number, image_id, bbox, category_id=3, iscrowd=0):
    entry = {"id": number, "image_id": image_id, "bbox": bbox, "category_id": category_id}
    return entry | {"area": bbox[2] * bbox[3], "iscrowd": iscrowd}


def document(*boxes, images=2):
    described = [{"id": number, "width": 400, "height": 300} for number in range(1, images + 1)]
    return {"images": described, "annotations": list(boxes), "categories": CATEGORIES}


def found(image_id, bbox, score, category_id=3):
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score}


def random_case(seed):
    """Boxes of three sizes, some of them crowds, and detections near them, doubled, and of nothing."""
    random = np.random.default_rng(seed)
    boxes, detections = [], []
    for image_id in range(1, 13):
        for _ in range(int(random.integers(0, 6))):
            side = float(random.choice([20, 60, 130]))
            bbox = [*random.uniform(0, 200, 2).tolist(), side, side * random.uniform(0.6, 1)]
            category = int(random.choice([3, 90]))
            boxes.append(true_box(len(boxes) + 1, image_id, bbox, category, int(random.random() < 0.1)))
            for _ in range(int(random.integers(0, 3))):
                moved = (np.array(bbox) + random.normal(0, side * 0.08, 4)).clip(1).tolist()
                detections.append(found(image_id, moved, float(random.random()), category))
        bbox = [*random.uniform(0, 200, 2).tolist(), 30.0, 30.0]
        detections.append(found(image_id, bbox, float(random.random()), int(random.choice([3, 17, 90]))))
    return document(*boxes, images=12), detections


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("images", [range(1, 13), (2, 3, 5, 7)])
def test_all_twelve_figures_are_those_of_pycocotools(seed, images):
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools, the reference, is not installed")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    truth, detections = random_case(seed)
    scores = score_detections(truth, [entry for entry in detections if entry["image_id"] in images], images)

    reference = coco.COCO()
    reference.dataset = truth
    reference.createIndex()
    evaluation = cocoeval.COCOeval(reference, reference.loadRes(detections), "bbox")
    evaluation.params.imgIds = list(images)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    expected = [math.nan if value < 0 else value for value in evaluation.stats]
    assert list(scores.figures) == list(FIGURES)
    assert list(scores.figures.values()) == pytest.approx(expected, abs=1e-9, nan_ok=True)
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    assert scores.precision.shape == (len(OVERLAPS), RECALLS, 3)
    np.testing.assert_allclose(scores.precision, np.where(precision < 0, np.nan, precision), atol=1e-9)


def test_classes_are_named_counted_and_measured():
    truth = document(
        true_box(1, 1, [10, 10, 40, 40]),
        true_box(2, 2, [10, 10, 40, 40]),
        true_box(3, 2, [100, 10, 40, 40], category_id=90),
        true_box(4, 2, [200, 10, 90, 90], category_id=90, iscrowd=1),
    )
    # The ant of the first image is found, at an overlap of 0.8, that of the second is not.
    detections = [found(1, [10, 10, 40, 32], 0.9), found(2, [100, 10, 40, 40], 0.8, category_id=90)]
    scores = score_detections(truth, detections, [1, 2])
    ant, other, bee = scores.classes
    assert (ant.name, ant.objects, bee.name, bee.objects) == ("ant", 2, "bee", 1)
    assert ant.ap50 == ant.ap75 == pytest.approx(51 / 101)
    assert ant.ap == pytest.approx(0.7 * 51 / 101)  # seven overlaps up to 0.8
    assert bee.ap == pytest.approx(1)
    assert (other.name, other.objects) == ("none of them", 0)
    assert math.isnan(other.ap)
    assert scores.figures["map"] == pytest.approx((ant.ap + bee.ap) / 2)
    assert math.isnan(scores.figures["map_large"])
    assert (scores.images, scores.detections) == (2, tuple(detections))


def test_nothing_found_is_zero_and_nothing_to_find_is_undefined():
    truth = document(true_box(1, 1, [10, 10, 40, 40]))
    assert score_detections(truth, [], [1, 2]).figures["map"] == 0
    assert math.isnan(score_detections(truth, [], [2]).figures["map"])
    assert math.isnan(score_detections(document(), [found(1, [1, 1, 5, 5], 0.5)], [1, 2]).figures["map50"])


def test_images_that_were_not_looked_at_do_not_count():
    truth = document(true_box(1, 1, [10, 10, 40, 40]), true_box(2, 2, [10, 10, 40, 40]))
    detections = [found(1, [10, 10, 40, 40], 0.9)]
    assert score_detections(truth, detections, [1]).figures["map"] == pytest.approx(1)
    assert score_detections(truth, detections, [1, 2]).figures["map"] == pytest.approx(51 / 101)


def test_detections_are_written_in_cocos_form():
    boxes = {"labels": torch.tensor([1, 0]), "scores": torch.tensor([0.75, 0.5])}
    corners = torch.tensor([[1.0, 2.0, 4.0, 8.0], [0.0, 0.0, 1.0, 1.0]])
    first, second = as_detections(boxes, corners, 7, [3, 90])
    assert first == {"image_id": 7, "category_id": 90, "bbox": [1.0, 2.0, 3.0, 6.0], "score": 0.75}
    assert second["category_id"] == 3
