"""Small COCO sets on disk, for the tests of what reads them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

SIZE = (40, 30)  # width, height
CATEGORIES = [{"id": 90, "name": "bee"}, {"id": 3, "name": "ant"}]


def annotation(number: int = 1, image_id: int = 1, **entries: Any) -> dict[str, Any]:
    """A box of an ant."""
    default = {"bbox": [2, 3, 10, 8], "area": 50, "category_id": 3, "iscrowd": 0}
    return {"id": number, "image_id": image_id} | default | entries


def image(number: int = 1, **entries: Any) -> dict[str, Any]:
    return {"id": number, "file_name": f"{number}.png", "width": SIZE[0], "height": SIZE[1]} | entries


def write_coco(
    root: Path,
    images: Sequence[Any] = (image(),),
    annotations: Sequence[Any] = (annotation(),),
    categories: Sequence[Any] = CATEGORIES,
    part: str = "train",
) -> Path:
    """Write a part with a picture for each entry that can have one, and return its json file."""
    file = root / "annotations" / f"instances_{part}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    document = {"images": list(images), "annotations": list(annotations), "categories": list(categories)}
    file.write_text(json.dumps(document))
    (root / part).mkdir(exist_ok=True)
    for entry in images:
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if isinstance(name, str) and name and "/" not in name:
            Image.new("RGB", SIZE).save(root / part / name)
    return file
