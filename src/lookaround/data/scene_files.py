"""Writing scenes as PNG and COCO json, the whole folder or nothing."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from lookaround.data.cutouts import PARTS, Pool
from lookaround.data.scenes import Scene, SceneSettings, compose_scene
from lookaround.errors import ArgumentError, DataError, message

# Of the scenes that are asked for; the rest is for training.
SHARES = {"val": 0.15, "test": 0.15}
Tick = Callable[[str, str, int], None]


def split_sizes(images: int) -> dict[str, int]:
    """Return how many of the scenes each part gets: 70, 15 and 15 percent, and at least one.

    Raises:
        ArgumentError: there are fewer scenes than parts.

    Example:
        >>> split_sizes(200)
        {'train': 140, 'val': 30, 'test': 30}
    """
    if images < len(PARTS):
        must = f"--images must be at least {len(PARTS)}, one for each of {', '.join(PARTS)}"
        raise ArgumentError(message("scenes", must, images))
    sizes = {part: max(1, round(images * share)) for part, share in SHARES.items()}
    return {"train": images - sum(sizes.values()), **sizes}


def write_scenes(
    out: str | Path,
    pools: Mapping[str, Pool],
    images: int,
    settings: SceneSettings,
    seed: int,
    tick: Tick = lambda part, name, number: None,
) -> Path:
    """Compose scenes and write `out`/PART/*.png with `out`/annotations/instances_PART.json.

    Everything is written beside `out` under a hidden name, which becomes `out` at the very end. The same
    arguments write the same bytes, and more images begin with the same ones in each part.

    Args:
        out: a folder that does not exist, or is empty.
        pools: the objects of each part.
        images: how many scenes, all parts together.
        settings: what they look like.
        seed: another one makes other scenes.
        tick: is told part, file and number of scenes of the part, before each scene.

    Returns:
        The folder.

    Raises:
        ArgumentError: a number is out of its range, or `out` holds something.
        DataError: the folder cannot be written.
    """
    sizes = split_sizes(images)
    if not 0 <= seed < 2**63:
        raise ArgumentError(message("scenes", "--seed must be from 0 to 2**63 - 1", seed))
    folder = Path(out)
    refuse_if_occupied(folder)
    try:
        with _becoming(folder) as partial:
            (partial / "annotations").mkdir()
            number = 0
            for part in PARTS:
                document = _document(pools[part], settings, seed, part)
                (partial / part).mkdir()
                for index, scene in _compose_part(pools[part], settings, seed, part, sizes[part]):
                    number += 1
                    name = f"{index:06}.png"
                    tick(part, name, sizes[part])
                    Image.fromarray(scene.pixels).save(partial / part / name)
                    _describe(scene, number, name, document)
                file = partial / "annotations" / f"instances_{part}.json"
                file.write_text(json.dumps(document) + "\n", encoding="utf-8")
    except OSError as error:
        must = "the folder of --out must be one that can be written"
        raise DataError(message("scenes", must, f"{str(folder)!r} ({error})")) from error
    return folder


def refuse_if_occupied(folder: Path) -> None:
    """Raise ArgumentError where something would be overwritten."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        hint = "name another folder, or remove this one."
        must = "--out must be a folder that does not exist or is empty"
        raise ArgumentError(message("scenes", must, repr(str(folder)), hint=hint))


@contextmanager
def _becoming(folder: Path) -> Iterator[Path]:
    """Give a folder beside `folder` that becomes it when the block ends well, else vanishes."""
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    partial.mkdir()
    try:
        yield partial
        refuse_if_occupied(folder)  # someone else may have written there meanwhile
        if folder.is_dir():
            folder.rmdir()
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _compose_part(
    pool: Pool, settings: SceneSettings, seed: int, part: str, number: int
) -> Iterator[tuple[int, Scene]]:
    for index in range(number):
        yield index, compose_scene(pool, settings, seed, PARTS.index(part), index)


def _document(pool: Pool, settings: SceneSettings, seed: int, part: str) -> dict[str, Any]:
    """Return a COCO document without images; it tells no time, so that its bytes are the same again."""
    sizes = f"{settings.image_size} pixels, objects of {settings.smallest} to {settings.largest}"
    return {
        "info": {"description": f"composed scenes, {part}; {sizes}; seed {seed}", "version": "1"},
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for number, name in enumerate(pool.class_names, start=1)],
    }


def _describe(scene: Scene, number: int, name: str, document: dict[str, Any]) -> None:
    """Add a scene and its boxes; what the cut-outs were cut from is told by their fingerprints."""
    height, width = scene.owners.shape
    image = {"id": number, "file_name": name, "width": width, "height": height}
    document["images"].append(image | {"fragments": list(scene.fragments)})
    for index, (label, cut_out) in enumerate(zip(scene.labels, scene.cut_outs, strict=True)):
        x1, y1, x2, y2 = scene.box(index)
        document["annotations"].append(
            {
                "id": len(document["annotations"]) + 1,
                "image_id": number,
                "category_id": label + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": scene.area(index),
                "iscrowd": 0,
                "cut_out": cut_out,
            }
        )
