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
from lookaround.models.variants import create_model

WEIGHTS_NAME = "weights.safetensors"
RECORD_NAME = "model.json"
FORMAT = 1


@dataclass(frozen=True)
class ModelRecord:
    """What `model.json` says.

    Attributes:
        name: the named model.
        overrides: what `create_model` needs besides the name.
        preprocessing: how an image becomes the model's input, as `data.Preprocessing.to_dict` gives it.
        class_names: names of the classes, in the order of the logits.
        metrics: figures measured on these weights, by name.
    """

    name: str
    overrides: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    class_names: list[str] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)


def save_model(
    model: ResNet,
    folder: str | Path,
    *,
    preprocessing: dict[str, Any] | None = None,
    class_names: list[str] | None = None,
    metrics: dict[str, float] | None = None,
) -> None:
    """Write a model's weights and record into a folder, which is made if need be.

    Args:
        model: the network; it is not changed.
        folder: where `weights.safetensors` and `model.json` go, replacing what is there.
        preprocessing: see `ModelRecord`.
        class_names: see `ModelRecord`.
        metrics: see `ModelRecord`.

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


def load_model(path: str | Path) -> tuple[ResNet, ModelRecord]:
    """Read a model back, ready to predict (in eval mode, on the CPU).

    Args:
        path: the folder, or one of the two files in it.

    Raises:
        CheckpointError: a file is missing, damaged, or the weights are of another model.
    """
    folder = Path(path).parent if Path(path).name in (WEIGHTS_NAME, RECORD_NAME) else Path(path)
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
    }
    return [
        f"{field}: expected {kind}; actual: {getattr(record, field)!r}"
        for field, (holds, kind) in rules.items()
        if not holds
    ]


def load_weights(model: ResNet, path: str | Path) -> None:
    """Read a safetensors file into a model, every tensor or none.

    Raises:
        CheckpointError: the file is missing or damaged, or its tensors are not those of the model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise CheckpointError(message("load_weights", "the weights file must exist", path))
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        must = "the weights must be a whole safetensors file"
        raise CheckpointError(message("load_weights", must, f"{path} ({error})")) from error
    misfits = _misfits(model, tensors)
    if misfits:
        shown = [*misfits[:5], f"… and {len(misfits) - 5} more"] if len(misfits) > 5 else misfits
        must = f"the weights must be those of {model.config.name}"
        hint = "load them into the model that model.json beside them names."
        raise CheckpointError(message("load_weights", must, path, lines=shown, hint=hint))
    model.load_state_dict(tensors)


def _misfits(model: ResNet, tensors: dict[str, torch.Tensor]) -> list[str]:
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
