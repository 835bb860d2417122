import numpy as np
import pytest
import torch
from PIL import Image

from lookaround.data.detection_preprocessing import DetectionAugmentation, DetectionPreprocessing
from lookaround.errors import ArgumentError, UnknownNameError

PLAIN = DetectionPreprocessing(64, 3, (0.0,) * 3, (1.0,) * 3)  # leaves pixels at 0 … 1


def painted(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    """A black picture with a white rectangle."""
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    return Image.fromarray(pixels)


def white_part(image: torch.Tensor) -> torch.Tensor:
    """The box around the pixels that are more white than black."""
    rows, columns = ((image[0] > 0.5).any(dim=axis).nonzero().flatten() for axis in (1, 0))
    return torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def test_the_longer_side_is_the_image_size():
    assert PLAIN.size_of(200, 100) == (64, 32)
    assert PLAIN.size_of(10, 40) == (16, 64)
    assert PLAIN.size_of(10_000, 1) == (64, 1)
    assert PLAIN.evaluation(Image.new("L", (200, 100))).shape == (3, 32, 64)


def test_an_image_of_the_right_size_is_not_touched():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    assert (PLAIN.evaluation(Image.fromarray(pixels)) * 255).round().permute(
        1, 2, 0
    ).tolist() == pixels.tolist()


def test_grey_and_colour_and_normalisation():
    grey = DetectionPreprocessing(8, 1, (0.5,), (0.25,))
    image = grey.evaluation(Image.new("RGB", (8, 4), "white"))
    assert image.shape == (1, 4, 8)
    assert image.unique().tolist() == [2.0]


def test_a_description_can_be_stored():
    described = DetectionPreprocessing(128, 3, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    stored = described.to_dict()
    assert stored == {"image_size": 128, "in_channels": 3, "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    assert DetectionPreprocessing.from_dict(stored) == described
    with pytest.raises(ArgumentError, match="a description must have the entries"):
        DetectionPreprocessing.from_dict({"image_size": 128})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((0, 1, (0.5,), (0.5,)), "image_size must be a whole number >= 1; got 0"),
        ((8, 2, (0.5,) * 2, (0.5,) * 2), r"in_channels must be 1 \(grey\) or 3 \(RGB\); got 2"),
        ((8, 1, (0.5,), (0.0,)), "std must be greater than 0"),
    ],
)
def test_values_that_cannot_be_used(values, words):
    with pytest.raises(ArgumentError, match=words):
        DetectionPreprocessing(*values)


def test_without_augmentation_boxes_scale_with_the_image():
    change = DetectionAugmentation(PLAIN)
    image, boxes, kept = change(painted((128, 96), (20, 30, 90, 70)), torch.tensor([[20.0, 30, 90, 70]]))
    assert image.shape == (3, 48, 64)
    assert boxes.tolist() == [[10, 15, 45, 35]]
    assert white_part(image).tolist() == [10, 15, 45, 35]
    assert kept.tolist() == [True]


@pytest.mark.parametrize("augment", ["flip", "paper"])
def test_boxes_go_where_the_pixels_go(augment):
    change = DetectionAugmentation(PLAIN, augment, jitter=(0.5, 2.0))
    shapes, moved = set(), set()
    for seed in range(60):
        torch.manual_seed(seed)
        size = [(100, 80), (64, 64), (40, 90)][seed % 3]
        corners = (15, 20, 33, 45)
        image, boxes, kept = change(painted(size, corners), torch.tensor([corners]).float())
        assert max(image.shape[1:]) <= 64
        shapes.add(tuple(image.shape[1:]))
        moved.add(tuple(boxes[0].tolist()))
        height, width = image.shape[1:]
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([width, height] * 2)).all()
        if kept.item():
            # Rounding of the size moves an edge by less than a pixel; a pixel is white or it is not.
            assert (white_part(image) - boxes[0]).abs().max() <= 1.01
        else:
            assert (image > 0.5).float().sum() <= 3 * 64
    assert len(moved) > (4 if augment == "flip" else 50)
    assert len(shapes) == 3 if augment == "flip" else len(shapes) > 20


def test_half_of_the_images_are_mirrored():
    change = DetectionAugmentation(PLAIN, "flip")
    picture = painted((64, 64), (0, 0, 10, 20))
    lefts = [change(picture, torch.tensor([[0.0, 0, 10, 20]]))[1][0, 0].item() for _ in range(200)]
    assert set(lefts) == {0, 54}
    assert 70 < lefts.count(0) < 130


def test_a_box_that_a_crop_leaves_out_is_told():
    change = DetectionAugmentation(PLAIN, "paper", jitter=(4.0, 4.0))
    corners = torch.tensor([[0.0, 0, 4, 4], [60, 60, 64, 64], [0, 0, 64, 64]])
    outcomes = set()
    for seed in range(40):
        torch.manual_seed(seed)
        image, boxes, kept = change(painted((64, 64), (0, 0, 64, 64)), corners)
        assert image.shape == (3, 64, 64)
        sides = (boxes[:, 2:] - boxes[:, :2]).min(dim=1).values
        assert ((sides >= 1) == kept).all()
        assert boxes[2].tolist() == [0, 0, 64, 64]
        outcomes.add(tuple(kept.tolist()))
    assert (False, False, True) in outcomes
    assert (True, True, True) not in outcomes


def test_no_boxes_are_no_fault():
    image, boxes, kept = DetectionAugmentation(PLAIN, "paper")(Image.new("RGB", (50, 70)), torch.zeros(0, 4))
    assert (boxes.shape, kept.shape) == ((0, 4), (0,))
    assert image.dtype == boxes.dtype == torch.float32


def test_jitter_and_name_are_checked():
    for jitter in ((0.0, 1.0), (1.2, 0.8), (0.8, float("inf")), (float("nan"), 1.0)):
        with pytest.raises(ArgumentError, match="jitter must be two scales above 0, the smaller one first"):
            DetectionAugmentation(PLAIN, "paper", jitter)
    with pytest.raises(
        UnknownNameError, match=r"known augmentation; got 'papers'.\nhint: did you mean 'paper'"
    ):
        DetectionAugmentation(PLAIN, "papers")
