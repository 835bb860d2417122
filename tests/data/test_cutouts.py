import numpy as np
import pytest

from lookaround.data import cutouts
from lookaround.data.cutouts import CutOut, Look, cut_out, extent, fingerprint, load_pools
from lookaround.data.digits import load as load_digits_splits
from lookaround.data.source import Settings
from lookaround.errors import DataError, UnknownNameError

LOOK = Look(edge=0.4, shading=0.0)


def test_pools_of_digits_share_no_object():
    pools = load_pools("digits")
    names = {part: {fingerprint(pixels) for pixels in pool.pixels} for part, pool in pools.items()}
    assert list(pools) == ["train", "val", "test"]
    assert not names["train"] & names["val"] | names["train"] & names["test"] | names["val"] & names["test"]
    assert [len(pool.labels) for pool in pools.values()] == [1295, 143, 359]
    assert pools["test"].class_names == tuple("0123456789")


def test_objects_of_test_scenes_are_test_images_of_classification():
    pool, splits = load_pools("digits")["test"], load_digits_splits(Settings())
    assert splits.test is not None
    assert np.array_equal(pool.pixels, splits.test.images[:, 0].numpy())
    assert list(pool.labels) == splits.test.targets


def test_an_object_that_occurs_twice_is_in_one_part_only(monkeypatch):
    import torch

    from lookaround.data.in_memory import LabelledImages
    from lookaround.data.preprocessing import Preprocessing
    from lookaround.data.source import Source, Splits

    def images(*values):
        pixels = torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4)
        return LabelledImages(pixels, torch.tensor(values))

    look = Preprocessing(4, 1, (0.5,), (0.5,))
    splits = Splits(images(1, 2, 3), images(2, 4), images(3, 5, 4), list("abcdef"), look)
    source = Source(lambda settings: None, lambda settings: splits)
    monkeypatch.setitem(cutouts._SOURCES, "digits", (source, LOOK))
    assert {part: pool.labels for part, pool in load_pools("digits").items()} == {
        "train": (1,),
        "val": (2,),
        "test": (3, 5, 4),
    }


def test_unknown_source():
    with pytest.raises(
        UnknownNameError, match=r"source of objects; got 'digit'.\nhint: did you mean 'digits'"
    ):
        load_pools("digit")


def test_garments_that_are_not_to_be_had(tmp_path, monkeypatch):
    monkeypatch.setattr("lookaround.data.fashion_mnist.DEBIAN_FOLDER", tmp_path)
    with pytest.raises(DataError, match="the four files of Fashion-MNIST must be in"):
        load_pools("fashion-mnist", str(tmp_path), download=False)


def square(side: int = 8) -> np.ndarray:
    pixels = np.zeros((side, side), dtype=np.uint8)
    pixels[2:6, 1:4] = 200
    return pixels


@pytest.mark.parametrize("longer_side", [8, 16, 40, 64])
def test_objects_are_scaled_to_their_size_and_cut_to_their_extent(longer_side):
    cut = cut_out(square(), LOOK, longer_side, 0.0)
    assert isinstance(cut, CutOut)
    assert abs(max(cut.opacity.shape) - longer_side) <= max(2, longer_side / 8)
    assert cut.opacity.shape[1] / cut.opacity.shape[0] == pytest.approx(3 / 4, abs=0.15)
    assert extent(cut.opacity >= 0.5) == tuple(slice(0, side) for side in cut.opacity.shape)
    assert cut.opacity.max() == cut.brightness.max() == 1
    assert cut.opacity.min() >= 0


def test_edges_are_sharp_at_every_size_and_nothing_is_left_beside_them():
    faint = Look(edge=0.1, shading=0.5)
    for look in (LOOK, faint):
        for longer_side in (16, 64):
            cut = cut_out(np.kron(np.eye(2, dtype=np.uint8), square()), look, longer_side, 0.0)
            soft = (cut.opacity > 0.01) & (cut.opacity < 0.99)
            assert soft.mean() < (0.5 if longer_side == 16 else 0.15)
            assert (cut.opacity == 0).mean() > 0.3


def test_turning_keeps_the_whole_object():
    long = np.zeros((9, 9), dtype=np.uint8)
    long[4, :] = 255
    upright = cut_out(np.rot90(long).copy(), LOOK, 48, 0.0)
    turned = cut_out(long, LOOK, 48, 90.0)
    assert turned.opacity.sum() == pytest.approx(upright.opacity.sum(), rel=0.05)


def test_an_empty_image_gives_no_object():
    assert cut_out(np.zeros((8, 8), dtype=np.uint8), LOOK, 20, 0.0) is None
    assert extent(np.zeros((3, 3), dtype=bool)) is None


def test_fingerprints_tell_pixels_apart():
    other = square()
    other[0, 0] = 1
    assert fingerprint(square()) == fingerprint(square()[::-1][::-1])
    assert fingerprint(square()) != fingerprint(other)
