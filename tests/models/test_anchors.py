"""Anchors: the paper's and torchvision's, and that their places depend on the level alone."""

import pytest
import torch
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import _default_anchorgen

from lookaround.models import RetinaNetConfig
from lookaround.models.anchors import LevelAnchors

DEPTHS = (1, 1, 1, 1)
CPU = torch.device("cpu")


def test_the_papers_anchors_have_two_scales_and_three_shapes() -> None:
    anchors = LevelAnchors(RetinaNetConfig("any", DEPTHS))
    assert anchors.num_anchors_per_location() == [6] * 5
    levels = anchors.by_level((128, 256), CPU)
    assert [len(level) for level in levels] == [6 * 16 * 32, 6 * 8 * 16, 6 * 4 * 8, 6 * 2 * 4, 6 * 1 * 2]
    for level, boxes in zip((3, 4, 5, 6, 7), levels, strict=True):
        stride = 2**level
        sizes = (boxes[:6, 2:] - boxes[:6, :2]) / (4 * stride)
        root = 2**0.5
        expected = [[1, 1], [root, root], [1.4, 0.7], [1.4 * root, 0.7 * root], [0.7, 1.4]]
        torch.testing.assert_close(sizes, torch.tensor([*expected, [0.7 * root, 1.4 * root]]))
        centres = (boxes[:, 2:] + boxes[:, :2]) / 2
        torch.testing.assert_close(centres[0], torch.full((2,), stride / 2))
        torch.testing.assert_close(centres[6] - centres[0], torch.tensor([float(stride), 0.0]))


@pytest.mark.parametrize("size", [(256, 384), (640, 640)])
def test_torchvisions_anchors_are_torchvisions(size: tuple[int, int]) -> None:
    """Where both sides are multiples of the largest stride, so that its own rule gives the true strides."""
    mine = LevelAnchors(RetinaNetConfig("any", DEPTHS, anchors="torchvision"))
    maps = [torch.zeros(1, 1, size[0] // 2**level, size[1] // 2**level) for level in (3, 4, 5, 6, 7)]
    images = ImageList(torch.zeros(1, 3, *size), [size])
    (theirs,) = _default_anchorgen()(images, maps)
    assert mine.num_anchors_per_location() == [9] * 5
    torch.testing.assert_close(torch.cat(mine.by_level(size, CPU)), theirs)


@pytest.mark.parametrize("kind", ["paper", "torchvision"])
def test_a_larger_batch_moves_no_anchor(kind: str) -> None:
    anchors = LevelAnchors(RetinaNetConfig("any", DEPTHS, anchors=kind))
    number = anchors.num_anchors_per_location()[0]
    small, large = anchors.by_level((96, 96), CPU), anchors.by_level((160, 224), CPU)
    for level, one, other in zip((3, 4, 5, 6, 7), small, large, strict=True):
        rows, columns = -(-96 // 2**level), -(-224 // 2**level)
        here = other.unflatten(0, (-1, columns, number))[:rows, :rows]
        torch.testing.assert_close(one, here.flatten(0, 2))


def test_the_smallest_anchor_is_an_option() -> None:
    config = RetinaNetConfig("any", DEPTHS, anchor_scale=2.0, levels=(3, 4, 5))
    first = [boxes[0] for boxes in LevelAnchors(config).by_level((64, 64), CPU)]
    assert [float(box[2] - box[0]) for box in first] == [16, 32, 64]


def test_anchors_are_made_where_the_images_are() -> None:
    with torch.device("meta"):
        anchors = LevelAnchors(RetinaNetConfig("any", DEPTHS))
    assert {boxes.device.type for boxes in anchors.by_level((64, 64), CPU)} == {"cpu"}
