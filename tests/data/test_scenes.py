import json
from pathlib import Path

import numpy as np
import pytest

from lookaround.data import scene_files
from lookaround.data.coco import read_coco
from lookaround.data.cutouts import PARTS, fingerprint, load_pools
from lookaround.data.detection import DetectionData
from lookaround.data.images import open_image
from lookaround.data.scene_files import split_sizes, write_scenes
from lookaround.data.scenes import (
    LARGEST_OVERLAP,
    LEAST_CONTRAST,
    LEAST_VISIBLE,
    SceneSettings,
    box_overlap,
    compose_scene,
)
from lookaround.errors import ArgumentError, DataError

SETTINGS = SceneSettings()
SMALL = SceneSettings(image_size=48, smallest=12, largest=24, most_objects=3, clutter=2)


@pytest.fixture(scope="module")
def pools():
    return load_pools("digits")


@pytest.fixture(scope="module")
def some_scenes(pools):
    return [compose_scene(pools["train"], SETTINGS, 0, 0, index) for index in range(60)]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_scenes_are_colour_pictures_with_objects(some_scenes):
    for scene in some_scenes:
        assert scene.pixels.shape == (128, 128, 3)
        assert scene.pixels.dtype == np.uint8
        assert scene.owners.shape == (128, 128)
        assert 1 <= len(scene.labels) == len(scene.cut_outs) <= 6
        assert len(scene.fragments) <= 6
    assert {len(scene.labels) for scene in some_scenes} == {1, 2, 3, 4, 5, 6}
    assert {label for scene in some_scenes for label in scene.labels} == set(range(10))


def test_boxes_are_the_extents_of_what_is_seen(some_scenes):
    for scene in some_scenes:
        assert set(np.unique(scene.owners)) == set(range(len(scene.labels) + 1))
        for index in range(len(scene.labels)):
            x1, y1, x2, y2 = scene.box(index)
            own = scene.owners == index + 1
            assert own[y1:y2, x1:x2].sum() == own.sum() == scene.area(index)
            assert own[y1].any()
            assert own[y2 - 1].any()
            assert own[:, x1].any()
            assert own[:, x2 - 1].any()


def test_objects_stand_out_from_what_is_around_them(some_scenes):
    """Pixels inside an object differ from those around it, or the boxes would be of something else."""
    contrasts = []
    for scene in some_scenes:
        if len(scene.labels) > 1:
            continue
        x1, y1, x2, y2 = scene.box(0)
        own = scene.owners == 1
        ring = np.zeros_like(own)
        ring[max(0, y1 - 3) : y2 + 3, max(0, x1 - 3) : x2 + 3] = True
        inside, outside = (scene.pixels[mask].mean(axis=0) / 255 for mask in (own, ring & ~own))
        contrasts.append(np.linalg.norm(inside - outside))
    assert len(contrasts) > 5
    assert min(contrasts) > LEAST_CONTRAST / 2


def test_sizes_are_as_asked_for(some_scenes):
    sides = []
    for scene in some_scenes:
        for index in range(len(scene.labels)):
            x1, y1, x2, y2 = scene.box(index)
            sides.append(max(x2 - x1, y2 - y1))
    assert min(sides) >= 0.6 * SETTINGS.smallest  # an object may be hidden in part
    assert max(sides) <= 1.4 * SETTINGS.largest  # and grows when it is turned
    assert np.percentile(sides, 20) < 26 < 36 < np.percentile(sides, 80)


def test_objects_overlap_but_not_much(pools):
    overlaps = []
    for index in range(60):
        scene = compose_scene(pools["train"], SETTINGS, 3, 0, index)
        masks = []
        for number in range(len(scene.labels)):
            x1, y1, x2, y2 = scene.box(number)
            mask = np.zeros_like(scene.owners, dtype=bool)
            mask[y1:y2, x1:x2] = True
            masks.append(mask)
        overlaps += [box_overlap(a, b) for i, a in enumerate(masks) for b in masks[:i]]
    assert max(overlaps) > 0.05
    assert max(overlaps) < LARGEST_OVERLAP + 0.1  # of the visible parts, which may be smaller


def test_a_full_scene_hides_no_object(pools):
    crowded = SceneSettings(image_size=64, smallest=24, largest=32, most_objects=40)
    for index in range(10):
        scene = compose_scene(pools["train"], crowded, 0, 0, index)
        assert len(scene.labels) < 20
        for number in range(len(scene.labels)):
            x1, y1, x2, y2 = scene.box(number)
            assert max(x2 - x1, y2 - y1) > LEAST_VISIBLE * 0.6 * crowded.smallest


def test_a_scene_is_a_function_of_its_numbers(pools):
    first, again = (compose_scene(pools["train"], SETTINGS, 5, 0, 7) for _ in range(2))
    assert np.array_equal(first.pixels, again.pixels)
    assert first.cut_outs == again.cut_outs
    for numbers in ((6, 0, 7), (5, 1, 7), (5, 0, 8)):
        assert not np.array_equal(first.pixels, compose_scene(pools["train"], SETTINGS, *numbers).pixels)


def test_box_overlap():
    first, second = (np.zeros((10, 10), dtype=bool) for _ in range(2))
    first[0, 0] = first[3, 3] = True  # a box of 4x4
    second[2:6, 2:6] = True
    assert box_overlap(first, second) == pytest.approx(4 / 28)
    assert box_overlap(first, first) == 1
    assert box_overlap(first, ~first[::-1] & (np.arange(10) > 5)) == 0


def test_what_is_written_is_read_back_exactly(tmp_path, pools):
    out = write_scenes(tmp_path / "scenes", pools, 20, SMALL, seed=3)
    assert sorted(path.name for path in out.iterdir()) == ["annotations", "test", "train", "val"]
    for part, number in split_sizes(20).items():
        read = read_coco(out / "annotations" / f"instances_{part}.json", out / part)
        assert len(read) == number
        assert read.summary.findings == ()
        assert read.categories.names == tuple("0123456789")
        for index, image in enumerate(read.images):
            scene = compose_scene(pools[part], SMALL, 3, PARTS.index(part), index)
            assert np.array_equal(np.asarray(open_image(image.path)), scene.pixels)
            assert image.boxes.tolist() == [list(scene.box(n)) for n in range(len(scene.labels))]
            assert image.labels.tolist() == list(scene.labels)
            assert image.areas.tolist() == [scene.area(n) for n in range(len(scene.labels))]


def test_what_is_written_can_be_trained_on(tmp_path, pools):
    out = write_scenes(tmp_path / "scenes", pools, 12, SMALL, seed=3)
    data = DetectionData("scenes", str(out), batch_size=4)
    images, targets = next(iter(data.train_dataloader()))
    assert images[0].shape == (3, 48, 48)
    assert all(len(target["boxes"]) for target in targets)
    assert data.num_classes == 10
    ids = [image.image_id for part in PARTS for image in data.parts[part].images]
    assert sorted(ids) == list(range(1, 13))


def test_the_same_seed_writes_the_same_bytes(tmp_path, pools):
    first, again, other = (
        tree(write_scenes(tmp_path / name, pools, 6, SMALL, seed))
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)


def test_parts_share_no_cut_out(tmp_path, pools):
    out = write_scenes(tmp_path / "scenes", pools, 60, SMALL, seed=0)
    used = {}
    for part in PARTS:
        document = json.loads((out / "annotations" / f"instances_{part}.json").read_text())
        used[part] = {entry["cut_out"] for entry in document["annotations"]}
        used[part] |= {name for image in document["images"] for name in image["fragments"]}
        assert used[part] <= {fingerprint(pixels) for pixels in pools[part].pixels}
    assert all(used.values())
    assert not used["train"] & used["val"] | used["train"] & used["test"] | used["val"] & used["test"]


def test_shares_of_the_parts():
    assert split_sizes(3) == {"train": 1, "val": 1, "test": 1}
    assert split_sizes(1000) == {"train": 700, "val": 150, "test": 150}
    with pytest.raises(
        ArgumentError, match="--images must be at least 3, one for each of train, val, test; got 2"
    ):
        split_sizes(2)


def test_a_folder_that_holds_something_is_not_touched(tmp_path, pools):
    (tmp_path / "mine.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(
            ArgumentError, match=r"does not exist or is empty; got '.*'.\nhint: name another folder"
        ):
            write_scenes(out, pools, 3, SMALL, 0)
    assert tree(tmp_path) == {"mine.txt": b"mine"}


def test_an_empty_folder_is_filled(tmp_path, pools):
    assert len(tree(write_scenes(tmp_path, pools, 3, SMALL, 0))) == 6


@pytest.mark.parametrize(
    ("stop", "raised", "words"),
    [
        (KeyboardInterrupt, KeyboardInterrupt, "now"),
        (OSError, DataError, r"--out must be one that can be written; got '.*scenes' \(now\)"),
    ],
)
def test_a_stopped_run_leaves_nothing(tmp_path, pools, stop, raised, words):
    def tick(part, name, number):
        if part == "val":
            raise stop("now")

    with pytest.raises(raised, match=words):
        write_scenes(tmp_path / "scenes", pools, 9, SMALL, 0, tick)
    assert list(tmp_path.iterdir()) == []


def test_what_appears_meanwhile_is_kept(tmp_path, pools):
    def tick(part, name, number):
        (tmp_path / "scenes").mkdir(exist_ok=True)
        (tmp_path / "scenes" / "theirs").touch()

    with pytest.raises(ArgumentError, match="does not exist or is empty"):
        write_scenes(tmp_path / "scenes", pools, 3, SMALL, 0, tick)
    assert list(tree(tmp_path)) == ["scenes/theirs"]


def test_progress_is_told_before_each_scene(tmp_path, pools):
    told = []
    write_scenes(tmp_path / "scenes", pools, 4, SMALL, 0, lambda *facts: told.append(facts))
    assert told[:2] == [("train", "000000.png", 2), ("train", "000001.png", 2)]
    assert [fact[0] for fact in told] == ["train", "train", "val", "test"]
    assert scene_files.PARTS == PARTS


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_out_of_range(tmp_path, pools, seed):
    with pytest.raises(ArgumentError, match="--seed must be from 0 to"):
        write_scenes(tmp_path / "scenes", pools, 3, SMALL, seed)


@pytest.mark.parametrize("sizes", [(128, 4, 64), (128, 64, 16), (64, 16, 100), (5000, 16, 64)])
def test_sizes_that_do_not_fit(sizes):
    with pytest.raises(
        ArgumentError, match=rf"sizes must hold 8 <= .*; got {sizes[1]}, {sizes[2]}, {sizes[0]}"
    ):
        SceneSettings(*sizes)


def test_numbers_of_objects_that_cannot_be():
    for numbers in ((0, 3), (3, -1)):
        with pytest.raises(ArgumentError, match="at least 1 object, and 0 fragments; got"):
            SceneSettings(128, 16, 64, *numbers)
