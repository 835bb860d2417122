import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from lookaround.data.augmentation import seeded
from lookaround.data.preprocessing import Preprocessing
from lookaround.errors import ArgumentError, UnknownNameError

GREY = Preprocessing(8, 1, (0.5,), (0.25,))
COLOUR = Preprocessing(8, 3, (0.5, 0.4, 0.3), (0.25, 0.5, 1.0), crop_fraction=0.5)


@pytest.mark.parametrize("preprocessing", [GREY, COLOUR])
def test_survives_json(preprocessing):
    plain = json.loads(json.dumps(preprocessing.to_dict()))
    assert Preprocessing.from_dict(plain) == preprocessing


def test_crop_fraction_may_be_left_out():
    plain = GREY.to_dict()
    del plain["crop_fraction"]
    assert Preprocessing.from_dict(plain) == GREY


def test_missing_and_unknown_entries_are_all_named():
    plain = GREY.to_dict() | {"size": 3}
    del plain["mean"], plain["std"]
    with pytest.raises(
        ArgumentError, match=r"must have the entries(.|\n)*missing: mean, std\n  unknown: size"
    ):
        Preprocessing.from_dict(plain)


@pytest.mark.usefixtures("shapes_unchecked")
def test_description_must_be_a_mapping():
    with pytest.raises(ArgumentError, match="must be a mapping of names to values; got 'list'"):
        Preprocessing.from_dict([1])  # type: ignore[arg-type]


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_size": 0}, "image_size must be a whole number >= 1; got 0"),
        ({"image_size": 8.0}, "image_size must be a whole number"),
        ({"image_size": True}, "image_size must be a whole number"),
        ({"in_channels": 2}, r"in_channels must be 1 \(grey\) or 3 \(RGB\); got 2"),
        ({"in_channels": 3}, "mean must have one number a channel, 3 of them"),
        ({"mean": "0.5"}, "mean must be a tuple of finite numbers"),
        ({"mean": [float("nan")]}, "mean must be a tuple of finite numbers"),
        ({"std": [1, 2]}, "std must have one number a channel, 1 of them"),
        ({"std": [0]}, "std must be greater than 0"),
        ({"crop_fraction": 0}, r"crop_fraction must be in \(0, 1\]; got 0"),
        ({"crop_fraction": None}, "crop_fraction must be in"),
    ],
)
def test_bad_values_are_named(change, words):
    with pytest.raises(ArgumentError, match=words):
        Preprocessing.from_dict(GREY.to_dict() | change)


def test_an_image_of_the_right_size_is_not_resampled():
    values = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    image = GREY.evaluation()(Image.fromarray(values))
    torch.testing.assert_close(image, (torch.tensor(values)[None] / 255 - 0.5) / 0.25)


def test_shorter_side_is_resized_and_the_centre_kept():
    # a white square in the middle half of a black picture fills the crop of half the side
    values = np.zeros((64, 128), dtype=np.uint8)
    values[16:48, 48:80] = 255
    image = COLOUR.evaluation()(Image.fromarray(values))
    assert image.shape == (3, 8, 8)
    inside = (1 - torch.tensor(COLOUR.mean)) / torch.tensor(COLOUR.std)
    torch.testing.assert_close(image[:, 1:-1, 1:-1], inside[:, None, None].expand(3, 6, 6))


def test_colour_picture_becomes_grey_where_the_network_sees_grey():
    assert GREY.evaluation()(Image.new("RGBA", (20, 30), "red")).shape == (1, 8, 8)


def test_a_strip_does_not_become_gigabytes():
    image = Preprocessing(64, 1, (0.5,), (0.5,)).evaluation()(Image.new("L", (200_000, 1), 255))
    assert image.shape == (1, 64, 64)
    torch.testing.assert_close(image, torch.ones(1, 64, 64))


def test_batches_equal_single_images():
    pixels = torch.randint(256, (5, 1, 11, 17), dtype=torch.uint8)
    batch = GREY.normalise(GREY.frame(pixels))
    single = [GREY.evaluation()(Image.fromarray(image[0].numpy())) for image in pixels]
    assert torch.equal(batch, torch.stack(single))


def test_unknown_augmentation_names_the_known():
    with pytest.raises(
        UnknownNameError, match=r"did you mean 'shift'\? Known: none, shift, shift_flip, paper"
    ):
        GREY.training("shfit")


def test_training_without_change_is_evaluation(make_picture):
    assert torch.equal(GREY.training("none")(make_picture(1)), GREY.evaluation()(make_picture(1)))


@pytest.mark.parametrize("augment", ["shift", "shift_flip", "paper"])
@pytest.mark.parametrize("preprocessing", [GREY, COLOUR])
def test_training_changes_follow_the_global_generator(make_picture, augment, preprocessing):
    change, image = preprocessing.training(augment), make_picture(1, (20, 30))
    views = []
    for seed in (0, 0, 1, 2, 3):
        with seeded(seed):
            views.append(change(image))
    assert views[0].shape == (preprocessing.in_channels, 8, 8)
    assert torch.equal(views[0], views[1])
    assert any(not torch.equal(views[0], view) for view in views[2:])


@pytest.mark.parametrize("augment", ["none", "shift", "paper"])
def test_transforms_can_be_sent_to_worker_processes(make_picture, augment):
    change = pickle.loads(pickle.dumps(COLOUR.training(augment)))
    assert change(make_picture(1)).shape == (3, 8, 8)
