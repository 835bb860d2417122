import json

import pytest

from lookaround.data.detection import DetectionData
from lookaround.data.scenes_to_make import ScenesToMake
from lookaround.errors import ArgumentError, DataError

TINY = {"images": 6, "image_size": 48, "smallest": 12, "largest": 24, "most_objects": 2, "clutter": 1}


def test_scenes_that_are_not_there_are_written_once(tmp_path):
    root = tmp_path / "deep" / "scenes"
    data = DetectionData("scenes", str(root), batch_size=2, scenes=ScenesToMake(seed=4, **TINY))
    data.prepare_data()
    file = root / "annotations" / "instances_train.json"
    assert "seed 4" in json.loads(file.read_text())["info"]["description"]
    assert {part: len(images) for part, images in data.parts.items()} == {"train": 4, "val": 1, "test": 1}
    before = file.stat().st_mtime_ns
    DetectionData("scenes", str(root), batch_size=2, scenes=ScenesToMake(seed=5, **TINY)).prepare_data()
    assert file.stat().st_mtime_ns == before


@pytest.mark.parametrize(("dataset", "scenes"), [("scenes", None), ("coco", ScenesToMake(**TINY))])
def test_nothing_is_written_unasked(tmp_path, dataset, scenes):
    data = DetectionData(dataset, str(tmp_path / "none"), scenes=scenes)
    data.prepare_data()
    assert not (tmp_path / "none").exists()
    with pytest.raises(DataError, match="root must be a folder that exists"):
        data.setup()


def test_the_same_scenes_as_the_command_writes(tmp_path):
    from lookaround.cli.main import main

    ScenesToMake(seed=4, **TINY).write(tmp_path / "a")
    sizes = ["--image-size", "48", "--object-sizes", "12", "24", "--objects", "2", "--clutter", "1"]
    out = tmp_path / "b"
    assert main(["data", "scenes", "--out", str(out), "--images", "6", "--seed", "4", *sizes]) == 0
    for file in (tmp_path / "a").rglob("*.*"):
        assert file.read_bytes() == (out / file.relative_to(tmp_path / "a")).read_bytes()


@pytest.mark.parametrize(
    ("wrong", "match"),
    [({"images": 2}, "--images must be at least 3"), ({"largest": 60}, "largest object <= image size")],
)
def test_scenes_that_cannot_be_are_refused(wrong, match):
    with pytest.raises(ArgumentError, match=match):
        ScenesToMake(**(TINY | wrong))
