"""Where the parts of a set of boxes lie: the layouts that COCO, its exporters and Pascal VOC have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lookaround.data.annotations import Annotations, Categories
from lookaround.data.coco import read_coco
from lookaround.data.voc import read_voc
from lookaround.errors import ArgumentError, DataError, UnknownNameError, closest, message

PARTS = ("train", "val", "test")
# What the parts are called in the wild.
NAMES = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}
WHERE = "DetectionData"


@dataclass(frozen=True)
class BoxSettings:
    """What is needed to find and read a set of boxes.

    Args:
        root: the folder of the set.
        annotation_files: COCO only: json file of each part, relative to root; empty: look for them.
        image_folders: COCO only: image folder of each part, relative to root; empty: look for them.
        verify: whether to look into every image file.
    """

    root: str | None = None
    annotation_files: Mapping[str, str] = field(default_factory=dict)
    image_folders: Mapping[str, str] = field(default_factory=dict)
    verify: bool = True

    def __post_init__(self) -> None:
        for name in (*self.annotation_files, *self.image_folders):
            if name not in PARTS:
                must = "annotation_files and image_folders must name parts"
                raise UnknownNameError(message(WHERE, must, repr(name), hint=closest(name, PARTS)))
        if self.annotation_files and "train" not in self.annotation_files:
            must = "annotation_files must name a file for 'train'"
            raise ArgumentError(message(WHERE, must, dict(self.annotation_files)))


def read_scenes(settings: BoxSettings) -> dict[str, Annotations]:
    """Read what `lookaround data scenes` wrote.

    Raises:
        DataError: the folder holds no scenes.
    """
    hint = f"write some: lookaround data scenes --out {settings.root} --images 1000 --seed 0"
    root = _root(settings, hint)
    if not (root / "annotations" / "instances_train.json").is_file():
        raise DataError(message(WHERE, "root must be a folder of scenes", repr(str(root)), hint=hint))
    return read_coco_parts(settings)


def read_coco_parts(settings: BoxSettings) -> dict[str, Annotations]:
    """Read the parts of a COCO set that are there, by the name of the part; `train` always is.

    Raises:
        DataError: a file is not found, stands for more than one, or cannot be used.
    """
    root = _root(settings, "check the path; relative ones start at the current folder.")
    files = {part: root / name for part, name in settings.annotation_files.items()} or _find_jsons(root)
    read: dict[str, Annotations] = {}
    for part in (part for part in PARTS if part in files):
        given = settings.image_folders.get(part)
        folders = _image_folders(root, part, files[part]) if given is None else [root / given]
        categories = read["train"].categories if part != "train" else None
        read[part] = read_coco(files[part], folders, categories, settings.verify)
    return read


def _root(settings: BoxSettings, hint: str) -> Path:
    if settings.root is None:
        must = "root must name the folder of images and annotations"
        raise ArgumentError(message(WHERE, must, None, hint="set data.root."))
    root = Path(settings.root)
    if not root.is_dir():
        raise DataError(message(WHERE, "root must be a folder that exists", repr(str(root)), hint=hint))
    return root


def _find_jsons(root: Path) -> dict[str, Path]:
    """Return the json of every part that has one; a single json without a part's name is all `train`."""
    found = {part: file for part in PARTS if (file := _find_json(root, part)) is not None}
    if "train" in found:
        return found
    alone = sorted({*root.glob("*.json"), *root.glob("annotations/*.json")})
    if len(alone) == 1 and not found:
        return {"train": alone[0]}
    must = "root must hold COCO annotations of a training part"
    hint = (
        "put them at annotations/instances_train.json or train/_annotations.coco.json, "
        "or name them: --data.annotation_files '{train: FILE, val: FILE}'."
    )
    got = f"{len(alone)} other json files in {str(root)!r}"
    raise DataError(message(WHERE, must, got, hint=hint))


def _find_json(root: Path, part: str) -> Path | None:
    for name in NAMES[part]:
        patterns = (
            f"annotations/instances_{name}*.json",
            f"annotations/{name}.json",
            f"{name}/_annotations.coco.json",
            f"{name}.json",
        )
        for pattern in patterns:
            files = sorted(root.glob(pattern))
            if len(files) > 1:
                must = f"one file must hold the annotations of {part}"
                hint = f"choose: --data.annotation_files '{{{part}: {files[0].relative_to(root)}, …}}'."
                names = ", ".join(file.name for file in files)
                raise DataError(message(WHERE, must, names, hint=hint))
            if files:
                return files[0]
    return None


def _image_folders(root: Path, part: str, file: Path) -> list[Path]:
    """Return the folders in which the images of a json may lie, the likeliest first."""
    own = file.stem.removeprefix("instances_")
    folders = [Path(own), Path("images", own)]
    folders += [Path(parent, name) for name in NAMES[part] for parent in ("", "images")]
    return [*(root / folder for folder in folders), file.parent, root / "images", root]


def read_voc_parts(settings: BoxSettings) -> dict[str, Annotations]:
    """Read the parts of a Pascal VOC set that are there, by the name of the part; `train` always is.

    Raises:
        DataError: there are no descriptions, or they cannot be used.
    """
    if settings.annotation_files or settings.image_folders:
        must = "annotation_files and image_folders must be left out for 'voc'"
        raise ArgumentError(message(WHERE, must, "both or one of them"))
    root = _root(settings, "check the path; relative ones start at the current folder.")
    read: dict[str, Annotations] = {}
    categories: Categories | None = None
    for part, (files, folder) in _find_voc_parts(root).items():
        read[part] = read_voc(files, folder, categories, settings.verify)
        categories = read["train"].categories
    return read


VocPart = tuple[list[Path], Path]


def _find_voc_parts(root: Path) -> dict[str, VocPart]:
    """Return xml files and image folder of every part: by VOC's lists, by folders, or all for `train`."""
    lists = {part: _listed(root, NAMES[part]) for part in PARTS}
    if lists["train"] is None:  # VOC2007's test images come without a list of their own for training
        lists["train"] = _listed(root, ("trainval",))
    if lists["train"] is not None:
        folder = root / "JPEGImages"
        return {part: (files, folder) for part, files in lists.items() if files is not None}
    inside = {
        part: next((root / name for name in NAMES[part] if (root / name).is_dir()), None) for part in PARTS
    }
    folders = {part: folder for part, folder in inside.items() if folder is not None}
    if "train" not in folders:
        folders = {"train": root}
    return {part: _descriptions(folder) for part, folder in folders.items()}


def _listed(root: Path, names: Sequence[str]) -> list[Path] | None:
    """Return the xml files that a list in ImageSets/Main names, None if there is no such list."""
    for name in names:
        file = root / "ImageSets" / "Main" / f"{name}.txt"
        if file.is_file():
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            stems = [Path(line.split()[0]).name for line in lines if line.split()]
            return [root / "Annotations" / f"{stem}.xml" for stem in stems]
    return None


def _descriptions(folder: Path) -> VocPart:
    """Return the xml files of a folder or its `Annotations`, and the folder of their images."""
    annotations = folder / "Annotations" if (folder / "Annotations").is_dir() else folder
    images = next((folder / name for name in ("JPEGImages", "images") if (folder / name).is_dir()), folder)
    files = sorted(annotations.glob("*.xml"))
    if not files:
        must = "there must be VOC xml files"
        hint = "root must hold Annotations and JPEGImages, or folders train and val with xml files."
        raise DataError(message(WHERE, must, f"none in {str(annotations)!r}", hint=hint))
    return files, images
