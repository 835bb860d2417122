"""What belongs to a model's weights, and the files that say it.

| written by | weights | record |
|---|---|---|
| a run, `save_model` | weights.safetensors | model.json |
| `integrations.hub.save_pretrained` | model.safetensors | config.json, under "lookaround" |

Both records hold the same. Some weights of ours come with the package, each in a folder of the first form,
whose name is their tag.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lookaround.errors import CheckpointError, message

WEIGHTS_NAME = "weights.safetensors"
RECORD_NAME = "model.json"
HUB_WEIGHTS_NAME = "model.safetensors"
HUB_RECORD_NAME = "config.json"
HUB_ENTRY = "lookaround"
FORMAT = 1
PAIRS = ((WEIGHTS_NAME, RECORD_NAME), (HUB_WEIGHTS_NAME, HUB_RECORD_NAME))
SHIPPED = Path(__file__).resolve().parents[1] / "weights"


@dataclass(frozen=True)
class ModelRecord:
    """What `model.json` says.

    Attributes:
        name: the named model.
        overrides: what `create_model` needs besides the name.
        preprocessing: how an image becomes the model's input, as `data.Preprocessing.to_dict` gives it.
        class_names: names of the classes, in the order of the logits.
        metrics: figures measured on these weights, by name.
        category_ids: of a detector, the id that each class has in its data set.
    """

    name: str
    overrides: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    class_names: list[str] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    category_ids: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class ModelFiles:
    """The two files of a model, in one folder.

    Attributes:
        weights: a safetensors file.
        record: a JSON file.
    """

    weights: Path
    record: Path


def shipped_tags() -> list[str]:
    """Name the weights that come with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{RECORD_NAME}"))


def find_files(path: str | Path) -> ModelFiles:
    """Find the two files that are meant by a folder, by either file, or by the tag of weights that ship.

    A folder that holds both forms is read as a run. A tag counts where there is no model in a folder of that
    name.

    Args:
        path: of a model; whether the files are there is not said.
    """
    given = Path(path)
    for pair in PAIRS:
        if given.name in pair:
            return ModelFiles(given.parent / pair[0], given.parent / pair[1])
    folders = [given, *([SHIPPED / given] if str(path) in shipped_tags() else [])]
    for folder in folders:
        for weights, record in PAIRS:
            if (folder / record).is_file():
                return ModelFiles(folder / weights, folder / record)
    return ModelFiles(given / WEIGHTS_NAME, given / RECORD_NAME)


def read_record(path: str | Path) -> ModelRecord:
    """Read the record of a model.

    Args:
        path: as for `find_files`.

    Raises:
        CheckpointError: it is missing, is no JSON, or lacks what a record has.
    """
    file = find_files(path).record
    if not file.is_file():
        tags = ", ".join(shipped_tags())
        hint = "name a run folder, as in runs/digits_full_attention, or the folder that save_model wrote"
        hint += f", or weights that come with the package: {tags}." if tags else "."
        must = f"the folder must hold {RECORD_NAME}"
        raise CheckpointError(message("load_model", must, file.parent, hint=hint))
    record, version = _parse(file)
    if version != FORMAT:
        must = f"{file.name} must have format {FORMAT}"
        hint = "a newer version of lookaround may read it."
        raise CheckpointError(message("load_model", must, f"{version!r} in {file}", hint=hint))
    wrong = mistyped(record)
    if wrong:
        must = f"{file.name} must have the types of ModelRecord"
        raise CheckpointError(message("load_model", must, file, lines=wrong))
    return record


def _parse(file: Path) -> tuple[ModelRecord, object]:
    """Read a record and the version of its form."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if file.name == HUB_RECORD_NAME:
            document = document[HUB_ENTRY]
        version = document.pop("format")
        return ModelRecord(**document), version
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        writer = "save_pretrained" if file.name == HUB_RECORD_NAME else "save_model"
        must = f"{file.name} must be a record as {writer} writes it"
        raise CheckpointError(message("load_model", must, f"{file} ({error})")) from error


def mistyped(record: ModelRecord) -> list[str]:
    """Say of every field that has not the type it is declared with what it should be."""
    overrides, names, metrics = record.overrides, record.class_names, record.metrics
    ids = record.category_ids
    numbers = isinstance(metrics, dict) and all(isinstance(value, (int, float)) for value in metrics.values())
    rules = {
        "name": (isinstance(record.name, str), "a string"),
        "overrides": (isinstance(overrides, dict) and "name" not in overrides, "a mapping without 'name'"),
        "preprocessing": (isinstance(record.preprocessing, dict), "a mapping"),
        "class_names": (
            isinstance(names, list) and all(isinstance(name, str) for name in names),
            "a list of strings",
        ),
        "metrics": (numbers, "a mapping of names to numbers"),
        "category_ids": (
            isinstance(ids, list) and all(isinstance(number, int) for number in ids),
            "a list of integers",
        ),
    }
    return [
        f"{field}: expected {kind}; actual: {getattr(record, field)!r}"
        for field, (holds, kind) in rules.items()
        if not holds
    ]
