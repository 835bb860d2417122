import csv
import dataclasses
import json
import math
import types

import numpy as np
import pytest
from PIL import Image

from lookaround.tasks.coco_metrics import FIGURES, OVERLAPS, RECALLS, ClassFigures, CocoScores
from lookaround.training import detection_record
from lookaround.training.detection_record import draw_detection_curves, draw_precision_recall, write_scores
from lookaround.training.pictures import save_figure

ROWS = [
    {"epoch": float(n), "train_loss": 1 / n, "val_box_loss": 0.5, "val_map": 1 - 1 / n} for n in (1, 2, 3)
]


def scores(*objects):
    precision = np.linspace(1, 0, RECALLS)[None, :, None].repeat(len(OVERLAPS), 0).repeat(len(objects), 2)
    classes = []
    for index, number in enumerate(objects):
        value = 0.5 if number else math.nan
        precision[:, :, index] *= 1 if number else math.nan
        classes.append(ClassFigures(f"class {index}", number, value, value, value))
    box = {"image_id": 1, "category_id": 0, "bbox": [0.0, 0.0, 1.0, 1.0], "score": 0.5}
    return CocoScores(dict.fromkeys(FIGURES, 0.5), tuple(classes), precision, (box,), 4)


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], []])
def test_learning_curves_are_drawn_whatever_is_there(tmp_path, rows):
    draw_detection_curves(rows, tmp_path / "a.png", "scenes")
    with Image.open(tmp_path / "a.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 0


@pytest.mark.parametrize("objects", [(3, 0), (0,), range(1, 40)])
def test_curves_of_precision_and_recall(tmp_path, objects):
    with np.errstate(all="raise"):
        draw_precision_recall(scores(*objects), tmp_path / "a.png", "validation")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 1000


def test_every_class_is_in_the_legend_by_its_name(tmp_path, monkeypatch):
    """Whatever the names hold: formulas are none, and an underscore at the front hides nothing."""
    known = scores(3, 3, 3)
    names = ["cost $5_{ & $6^", "_hidden", "a, b"]
    classes = tuple(
        dataclasses.replace(entry, name=name) for entry, name in zip(known.classes, names, strict=True)
    )
    written = []

    def save(figure, path):
        written.extend(text.get_text() for text in figure.axes[1].get_legend().get_texts())
        save_figure(figure, path)

    monkeypatch.setattr(detection_record, "save_figure", save)
    draw_precision_recall(dataclasses.replace(known, classes=classes), tmp_path / "a.png", "run_${: $x^")
    assert [text.strip() for text in written] == [f"{name}: 0.500" for name in names]
    assert (tmp_path / "a.png").is_file()


def test_the_files_of_a_measurement(tmp_path):
    write_scores(types.SimpleNamespace(scores=scores(3, 0)), None, tmp_path, "test_", "a")
    with (tmp_path / "test_classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {"name": "class 0", "objects": "3", "ap": "0.5", "ap50": "0.5", "ap75": "0.5"}
    assert rows[1]["ap"] == ""
    assert json.loads((tmp_path / "test_detections.json").read_text())[0]["score"] == 0.5
    assert (tmp_path / "test_precision_recall.png").is_file()


def test_without_a_measurement_there_are_no_files(tmp_path):
    write_scores(types.SimpleNamespace(scores=None), None, tmp_path, "", "a")
    assert list(tmp_path.iterdir()) == []
