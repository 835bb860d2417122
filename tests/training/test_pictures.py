import numpy as np
import pytest
from PIL import Image

from lookaround.training.pictures import draw_confusion_matrix, draw_learning_curves

ROWS = [
    {
        "epoch": float(n),
        "train_loss": 1 / n,
        "val_loss": 1.1 / n,
        "val_accuracy": 1 - 0.5 / n,
        "learning_rate": 0.1 / n,
    }
    for n in range(1, 6)
]


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], [{"epoch": 1.0}], []])
def test_learning_curves_are_drawn_whatever_is_there(tmp_path, rows):
    draw_learning_curves(rows, tmp_path / "a.png", "digits")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (1440, 456)
        assert np.asarray(picture.convert("L")).std() > 0


@pytest.mark.parametrize("classes", [1, 10, 60])
def test_confusion_matrices_of_any_size(tmp_path, classes):
    counts = np.random.default_rng(0).integers(0, 9, (classes, classes))
    draw_confusion_matrix(counts, [f"class {n}" for n in range(classes)], tmp_path / "a.png", "validation")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 400


def test_a_class_without_images_is_no_division_by_zero(tmp_path):
    with np.errstate(all="raise"):
        draw_confusion_matrix(np.array([[0, 0], [1, 2]]), ["a", "b"], tmp_path / "a.png", "validation")
    assert (tmp_path / "a.png").is_file()


def test_names_are_no_formulas(tmp_path):
    """A lone brace in a formula would be an error after the training, when the picture is drawn."""
    names = ["cost $5_{ & $6^", "_hidden", "a, b"]
    draw_confusion_matrix(np.eye(3, dtype=int), names, tmp_path / "a.png", "run_${: $x^")
    draw_learning_curves(ROWS, tmp_path / "b.png", "run_${: $x^")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]
