"""Two lists of detections are compared as sets, with a reason for every box that one of them has not."""

import re

import pytest
import torch
from torch import Tensor

pytest.importorskip("torchvision")

from lookaround.integrations.box_comparison import compare_boxes

BOXES = [[0, 0, 10, 10], [20, 20, 40, 40], [0, 50, 30, 60]]


def detections(boxes=BOXES, scores=(0.9, 0.8, 0.3), labels=(1, 0, 1), room=5) -> tuple[Tensor, ...]:
    """Give one image's detections with room for some more."""
    missing = room - len(scores)
    return (
        torch.cat([torch.tensor(boxes, dtype=torch.float32), torch.zeros(missing, 4)])[None],
        torch.tensor([*scores, *[0.0] * missing])[None],
        torch.tensor([*labels, *[-1] * missing])[None],
        torch.tensor([len(scores)]),
    )


def compare(found, expected=None):
    return compare_boxes(found, detections() if expected is None else expected, 1e-3, nms_threshold=0.5)


def test_the_same_in_another_order_is_the_same() -> None:
    found = detections([BOXES[1], BOXES[0], BOXES[2]], (0.8, 0.9, 0.3), (0, 1, 1))
    assert compare(found) == ({"boxes": 0.0, "scores": 0.0}, [], 3)


def test_the_largest_differences_are_told() -> None:
    found = detections([[0, 0, 10, 10.03], *BOXES[1:]], (0.9, 0.8, 0.3002))
    differences, problems, _ = compare(found)
    assert problems == []
    assert differences == pytest.approx({"boxes": 0.03, "scores": 0.0002}, rel=1e-2)


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (detections(BOXES[1:], (0.8, 0.3), (0, 1)), r"image 0: missing: label 1, score 0.9000, box 0.0, 0.0"),
        (detections([*BOXES, [70, 70, 80, 80]], (0.9, 0.8, 0.3, 0.5), (1, 0, 1, 2)), "not expected: label 2"),
        (detections(labels=(2, 0, 1)), "missing: label 1"),
        (detections(scores=(0.9, 0.7, 0.3)), "missing: label 0, score 0.8000"),
        (detections([[0, 0, 10, 10.5], *BOXES[1:]]), r"boxes: off by 0.5; allowed: 0.06"),
        (detections(scores=(0.9, float("nan"), 0.3)), r"scores: expected finite \(1, 5\)"),
        (detections(room=4), r"boxes: expected finite \(1, 5, 4\); actual: \(1, 4, 4\)"),
        (detections([], (), ()), "missing: label 1"),
    ],
)  # fmt: skip
def test_what_differs_is_told(found, problem) -> None:
    assert re.search(problem, "\n".join(compare(found)[1]))


def test_one_of_two_boxes_of_nearly_one_score_may_suppress_the_other() -> None:
    one = detections([[0, 0, 10, 10]], (0.9,), (1,))
    other = detections([[0, 2, 10, 12]], (0.9001,), (1,))
    assert compare(one, other)[1] == []


def test_the_last_of_a_list_may_have_been_cut_off() -> None:
    found = detections([*BOXES[:2], [70, 70, 80, 80]], (0.9, 0.8, 0.3001), (1, 0, 2))
    assert compare(found)[1] == []


def test_boxes_without_area_are_known_by_their_place() -> None:
    flat = detections([[0, 0, 10, 0], [0, 0, 10, 0]], (0.9, 0.5), (1, 1))
    assert compare(flat, flat) == ({"boxes": 0.0, "scores": 0.0}, [], 2)
