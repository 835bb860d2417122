import numpy as np
import pytest
from PIL import Image

from lookaround.explorer.boxes import DrawnBox, draw_boxes, label_colour, round_colours, tile_pictures


def test_a_box_is_an_outline_in_the_colour_of_its_label():
    picture = Image.new("RGB", (640, 480), "black")
    drawn = np.asarray(draw_boxes(picture, [DrawnBox((100.0, 200.0, 300.0, 400.0), "dog 0.90", 1)]))
    assert drawn.shape == (480, 640, 3)
    assert tuple(drawn[300, 100]) == tuple(drawn[300, 299]) == tuple(drawn[399, 200]) == label_colour(1)
    assert tuple(drawn[300, 200]) == (0, 0, 0)
    assert (drawn[180:199, 100:140] == label_colour(1)).all(-1).any()  # the ground of the text
    assert np.asarray(picture).max() == 0


@pytest.mark.parametrize(
    ("size", "drawn"), [((128, 96), (512, 384)), ((8, 4), (64, 32)), ((1000, 10), (1000, 10))]
)
def test_small_pictures_are_enlarged(size, drawn):
    assert (
        draw_boxes(Image.new("L", size), [DrawnBox((0.0, 0.0, float(size[0]), float(size[1])), "a", 0)]).size
        == drawn
    )


def test_how_far_pictures_are_enlarged_can_be_chosen():
    assert draw_boxes(Image.new("L", (96, 80)), [], least_side=288).size == (288, 240)
    assert draw_boxes(Image.new("L", (96, 80)), [], least_side=96).size == (96, 80)


def test_pictures_are_tiled_row_by_row():
    pictures = [Image.new("RGB", (20, 10), (shade, 0, 0)) for shade in (10, 20, 30)]
    sheet = np.asarray(tile_pictures(pictures, columns=2))
    assert sheet.shape == (28, 48, 3)
    assert [sheet[5, 10, 0], sheet[5, 38, 0], sheet[23, 10, 0]] == [10, 20, 30]
    assert (sheet[:, 20:28] == 255).all()
    assert (sheet[18:, 28:] == 255).all()
    assert tile_pictures(pictures[:1], columns=3).size == (20, 10)


def test_rounded_colours_are_near_and_few():
    shades = np.arange(256, dtype=np.uint8).reshape(16, 16)
    rounded = np.asarray(round_colours(Image.fromarray(shades)))
    assert np.abs(rounded.astype(int) - shades).max() <= 4
    assert len(np.unique(rounded)) == 33
    assert (rounded[0, 0], rounded[-1, -1]) == (0, 255)


@pytest.mark.parametrize(
    "corners", [(0.0, 0.0, 640.0, 480.0), (0.0, 0.0, 0.2, 0.2), (630.0, 470.0, 640.0, 480.0)]
)
def test_boxes_at_the_border_stay_in_the_picture(corners):
    drawn = draw_boxes(Image.new("RGB", (640, 480)), [DrawnBox(corners, "a long name 1.00", 2)])
    assert (np.asarray(drawn) == label_colour(2)).all(-1).sum() > 200


def test_the_first_box_is_above_the_others():
    boxes = [DrawnBox((10.0, 50.0, 90.0, 90.0), "", 0), DrawnBox((10.0, 50.0, 90.0, 90.0), "", 1)]
    drawn = np.asarray(draw_boxes(Image.new("RGB", (600, 600)), boxes))
    assert tuple(drawn[70, 10]) == label_colour(0)


def test_neighbouring_labels_differ_in_colour():
    colours = [label_colour(label) for label in range(10)]
    assert len(set(colours)) == 10
    assert all(max(colour) == 255 for colour in colours)
