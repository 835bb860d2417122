"""A difference that the dtype does not explain is an error, and is told."""

import pytest
import torch

pytest.importorskip("torchvision")

from lookaround.errors import ExportError
from lookaround.integrations.deployment import Plan, make_reference
from lookaround.integrations.verification import verify
from networks_to_export import classifier, detector

PLAN = Plan((16, 16))


def off_by(reference, change):
    """Give an export that is wrong by so much."""

    def run(inputs):
        with torch.no_grad():
            return change(list(reference(*inputs)))

    return run


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda out: [out[0] * 1.01, out[1]], r"1 images of \(16, 16\); got 1 difference.(.|\n)*logits: off"),
        (lambda out: [out[0], out[1] + 1], r"probabilities: off by 1; allowed: "),
        (lambda out: [out[0] * float("nan"), out[1]], "logits: off by nan"),
        (lambda out: [out[0][:, :2], out[1]], r"logits: expected \(1, 3\); actual: \(1, 2\)"),
    ],
)  # fmt: skip
def test_wrong_classes_are_an_error(change, problem) -> None:
    reference = make_reference(classifier(), PLAN, {})
    with pytest.raises(ExportError, match=problem):
        verify(off_by(reference, change), reference, PLAN)


def test_half_precision_is_given_more_room() -> None:
    reference, half = make_reference(classifier(), PLAN, {}), Plan((16, 16), dtype="float16")
    slightly = off_by(reference, lambda out: [out[0] * 1.01, out[1]])
    assert verify(slightly, reference, half).tolerance > 0.01
    with pytest.raises(ExportError, match=r"hint: try float32\."):
        verify(off_by(reference, lambda out: [out[0] * 1.1, out[1]]), reference, half)


def test_wrong_boxes_are_an_error() -> None:
    plan = Plan((64, 96))
    reference = make_reference(detector(), plan, {})
    assert verify(off_by(reference, lambda out: out), reference, plan).values > 0
    with pytest.raises(ExportError, match=r"image 0: missing: label \d, score"):
        verify(off_by(reference, lambda out: [out[0], out[1], (out[2] + 1) % 3, out[3]]), reference, plan)
