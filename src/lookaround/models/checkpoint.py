"""A model's files: `weights.safetensors` with the numbers, `model.json` with what they belong to.

Neither can run code. Both are written to a temporary name first, so that a folder holds whole files only.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from lookaround.errors import ArgumentError, CheckpointError, LookaroundError, message
from lookaround.models.resnet import ResNet
from lookaround.models.variants import Model, create_model

WEIGHTS_NAME = "weights.safetensors"
RECORD_NAME = "model.json"
FORMAT = 1
BODY, LAST_LAYER = "backbone.body.", "fc."  # the ResNet in a detector; what classifies in a ResNet
# Options of a backbone that no tensor need show. How far the stem reduces (`small`) is none of them: a
# backbone may be trained on small images and look at large ones.
UNSEEN_OPTIONS = ("stem", "stem_values", "kernel_size", "num_heads", "position", "content", "border")


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


def save_model(
    model: Model,
    folder: str | Path,
    *,
    preprocessing: dict[str, Any] | None = None,
    class_names: list[str] | None = None,
    metrics: dict[str, float] | None = None,
    category_ids: list[int] | None = None,
) -> None:
    """Write a model's weights and record into a folder, which is made if need be.

    Args:
        model: the network; it is not changed.
        folder: where `weights.safetensors` and `model.json` go, replacing what is there.
        preprocessing: see `ModelRecord`.
        class_names: see `ModelRecord`.
        metrics: see `ModelRecord`.
        category_ids: see `ModelRecord`.

    Raises:
        ArgumentError: what the record would hold has not the types of `ModelRecord`; nothing is written.
    """
    from safetensors.torch import save

    record = ModelRecord(
        name=model.config.name,
        overrides=model.config.overrides(),
        preprocessing=preprocessing if preprocessing is not None else {},
        class_names=class_names if class_names is not None else [],
        metrics=metrics if metrics is not None else {},
        category_ids=category_ids if category_ids is not None else [],
    )
    mistyped = _mistyped(record)
    if mistyped:
        must = "the record must have the types of ModelRecord"
        raise ArgumentError(message("save_model", must, f"{len(mistyped)} other", lines=mistyped))
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    document = json.dumps({"format": FORMAT, **asdict(record)}, indent=2) + "\n"
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    _replace(target / WEIGHTS_NAME, save(tensors, metadata={"format": "pt"}))
    _replace(target / RECORD_NAME, document.encode())


def load_model(path: str | Path) -> tuple[Model, ModelRecord]:
    """Read a model back, ready to predict (in eval mode, on the CPU).

    Args:
        path: the folder, or one of the two files in it.

    Raises:
        CheckpointError: a file is missing, damaged, or the weights are of another model.
    """
    folder = _folder_of(path)
    record = read_record(folder)
    try:
        model = create_model(record.name, **record.overrides)
    except LookaroundError as error:
        must = "model.json must describe a model that can be made"
        raise CheckpointError(message("load_model", must, f"{folder / RECORD_NAME} ({error})")) from error
    load_weights(model, folder / WEIGHTS_NAME)
    return model.eval(), record


def read_record(folder: str | Path) -> ModelRecord:
    """Read `model.json` in a folder.

    Raises:
        CheckpointError: it is missing, is no JSON, or lacks what a record has.
    """
    path = Path(folder) / RECORD_NAME
    if not path.is_file():
        hint = "name a run folder, as in runs/digits_full_attention, or the folder that save_model wrote."
        raise CheckpointError(message("load_model", f"the folder must hold {RECORD_NAME}", folder, hint=hint))
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        version = document.pop("format")
        record = ModelRecord(**document)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        must = f"{RECORD_NAME} must be a record as save_model writes it"
        raise CheckpointError(message("load_model", must, f"{path} ({error})")) from error
    if version != FORMAT:
        must = f"{RECORD_NAME} must have format {FORMAT}"
        hint = "a newer version of lookaround may read it."
        raise CheckpointError(message("load_model", must, f"{version!r} in {path}", hint=hint))
    mistyped = _mistyped(record)
    if mistyped:
        must = f"{RECORD_NAME} must have the types of ModelRecord"
        raise CheckpointError(message("load_model", must, path, lines=mistyped))
    return record


def _mistyped(record: ModelRecord) -> list[str]:
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


def load_weights(model: Model, path: str | Path) -> None:
    """Read a safetensors file into a model, every tensor or none.

    Raises:
        CheckpointError: the file is missing or damaged, or its tensors are not those of the model.
    """
    tensors = _read_tensors("load_weights", path)
    misfits = _misfits(model, tensors)
    if misfits:
        must = f"the weights must be those of {model.config.name}"
        hint = "load them into the model that model.json beside them names."
        raise CheckpointError(message("load_weights", must, path, lines=_shorten(misfits), hint=hint))
    model.load_state_dict(tensors)


def load_backbone(model: Model, path: str | Path) -> None:
    """Start a detector's backbone, or a classifier but for its last layer, from the weights of another run.

    Of the weights, the last layer of a classifier (`fc`) is left out, and of a detector all but its backbone.
    Everything else must fit the backbone of `model`; every tensor is read, or none.

    Args:
        model: what gets the weights; its other layers stay as they are.
        path: the folder of a run or of `save_model`, one of the two files in it, or a safetensors file of
            another name, which has no record beside it.

    Raises:
        CheckpointError: a file is missing or damaged, or its backbone is another.
    """
    body = model if isinstance(model, ResNet) else model.backbone.body
    alone = Path(path).is_file() and Path(path).name not in (WEIGHTS_NAME, RECORD_NAME)
    weights = Path(path) if alone else _folder_of(path) / WEIGHTS_NAME
    tensors = _read_tensors("load_backbone", weights)
    inside = {key.removeprefix(BODY): value for key, value in tensors.items() if key.startswith(BODY)}
    tensors = {key: value for key, value in (inside or tensors).items() if not key.startswith(LAST_LAYER)}
    misfits = [line for line in _misfits(body, tensors) if not line.startswith(f"missing: {LAST_LAYER}")]
    if not alone and (weights.parent / RECORD_NAME).is_file():
        misfits += _other_options(body, read_record(weights.parent))
    if misfits:
        must = f"the weights must have the backbone of {model.config.name}"
        hint = "make the model with the overrides of the run that the weights are from."
        raise CheckpointError(message("load_backbone", must, weights, lines=_shorten(misfits), hint=hint))
    body.load_state_dict(tensors, strict=False)


def _other_options(body: ResNet, record: ModelRecord) -> list[str]:
    """Name the options in which a backbone differs though its tensors need not show it."""
    try:
        with torch.device("meta"):
            theirs = create_model(record.name, **record.overrides).config
    except LookaroundError as error:
        return [f"{RECORD_NAME} must describe a model that can be made: {error}"]
    pairs = [(name, getattr(theirs, name), getattr(body.config, name)) for name in UNSEEN_OPTIONS]
    return [f"{name}: expected {mine!r}; actual: {other!r}" for name, other, mine in pairs if other != mine]


def _folder_of(path: str | Path) -> Path:
    return Path(path).parent if Path(path).name in (WEIGHTS_NAME, RECORD_NAME) else Path(path)


def _shorten(lines: list[str]) -> list[str]:
    return [*lines[:5], f"… and {len(lines) - 5} more"] if len(lines) > 5 else lines


def _read_tensors(where: str, path: str | Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise CheckpointError(message(where, "the weights file must exist", path))
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        must = "the weights must be a whole safetensors file"
        raise CheckpointError(message(where, must, f"{path} ({error})")) from error


def _misfits(model: Model, tensors: dict[str, torch.Tensor]) -> list[str]:
    expected = model.state_dict()
    lines = [f"missing: {name}" for name in expected if name not in tensors]
    lines += [f"not in the model: {name}" for name in tensors if name not in expected]
    for name, tensor in tensors.items():
        if name in expected and expected[name].shape != tensor.shape:
            lines.append(f"{name}: expected {tuple(expected[name].shape)}; actual: {tuple(tensor.shape)}")
    return lines


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
