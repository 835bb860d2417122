"""A model's files: `weights.safetensors` with the numbers, `model.json` with what they belong to.

Neither can run code. Both are written to a temporary name first, so that a folder holds whole files only.
"""

import dataclasses
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lookaround.errors import ArgumentError, CheckpointError, LookaroundError, message
from lookaround.models.config import ResNetConfig
from lookaround.models.record import (
    FORMAT,
    PAIRS,
    RECORD_NAME,
    WEIGHTS_NAME,
    ModelRecord,
    find_files,
    mistyped,
    read_record,
)
from lookaround.models.resnet import ResNet
from lookaround.models.variants import Model, create_model

__all__ = [
    "RECORD_NAME",
    "WEIGHTS_NAME",
    "ModelRecord",
    "load_backbone",
    "load_model",
    "load_weights",
    "misfits",
    "read_record",
    "read_tensors",
    "save_model",
    "save_record",
]

BODY, LAST_LAYER = "backbone.body.", "fc."  # the ResNet in a detector; what classifies in a ResNet
# In all other options the backbone of weights must be the one of the model, whether tensors show it or not.
# How far the stem reduces (`small`) may differ: a backbone may be trained on small images and look at large.
MAY_DIFFER = {"name", "num_classes", "small", "drop_path", "batch_norm_momentum", "backend"}


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
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    document = _document(record)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    _replace(target / WEIGHTS_NAME, save(tensors, metadata={"format": "pt"}))
    _replace(target / RECORD_NAME, document)


def save_record(record: ModelRecord, folder: str | Path) -> None:
    """Write `model.json` alone, into a folder that is there.

    Raises:
        ArgumentError: the record has not the types of `ModelRecord`; nothing is written.
    """
    _replace(Path(folder) / RECORD_NAME, _document(record))


def _document(record: ModelRecord) -> bytes:
    wrong = mistyped(record)
    if wrong:
        must = "the record must have the types of ModelRecord"
        raise ArgumentError(message("save_model", must, f"{len(wrong)} other", lines=wrong))
    return (json.dumps({"format": FORMAT, **asdict(record)}, indent=2) + "\n").encode()


def load_model(path: str | Path) -> tuple[Model, ModelRecord]:
    """Read a model back, ready to predict (in eval mode, on the CPU).

    Args:
        path: a folder that a run, `save_model` or `integrations.hub.save_pretrained` wrote, one of the two
            files in it, or the tag of weights that come with the package, as in `list_pretrained()`.

    Raises:
        CheckpointError: a file is missing, damaged, or the weights are of another model.
    """
    files = find_files(path)
    record = read_record(path)
    try:
        model = create_model(record.name, **record.overrides)
    except LookaroundError as error:
        must = f"{files.record.name} must describe a model that can be made"
        raise CheckpointError(message("load_model", must, f"{files.record} ({error})")) from error
    load_weights(model, files.weights)
    return model.eval(), record


def load_weights(model: Model, path: str | Path) -> None:
    """Read a safetensors file into a model, every tensor or none.

    Raises:
        CheckpointError: the file is missing or damaged, or its tensors are not those of the model.
    """
    tensors = read_tensors("load_weights", path)
    wrong = misfits(model, tensors)
    if wrong:
        must = f"the weights must be those of {model.config.name}"
        hint = "load them into the model that model.json beside them names."
        raise CheckpointError(message("load_weights", must, path, lines=_shorten(wrong), hint=hint))
    model.load_state_dict(tensors)


def load_backbone(model: Model, path: str | Path) -> None:
    """Start a detector's backbone, or a classifier but for its last layer, from the weights of another run.

    Of the weights, the last layer of a classifier (`fc`) is left out, and of a detector all but its backbone.
    Everything else must fit the backbone of `model`; every tensor is read, or none.

    Args:
        model: what gets the weights; its other layers stay as they are.
        path: as for `load_model`, or a safetensors file of another name, which has no record beside it.

    Raises:
        CheckpointError: a file is missing or damaged, or its backbone is another.
    """
    body = model if isinstance(model, ResNet) else model.backbone.body
    alone = Path(path).is_file() and not any(Path(path).name in pair for pair in PAIRS)
    files = find_files(path)
    weights = Path(path) if alone else files.weights
    tensors = read_tensors("load_backbone", weights)
    inside = {key.removeprefix(BODY): value for key, value in tensors.items() if key.startswith(BODY)}
    tensors = {key: value for key, value in (inside or tensors).items() if not key.startswith(LAST_LAYER)}
    wrong = [line for line in misfits(body, tensors) if not line.startswith(f"missing: {LAST_LAYER}")]
    if not alone and files.record.is_file():
        wrong += _other_options(body, read_record(files.record))
    if wrong:
        must = f"the weights must have the backbone of {model.config.name}"
        hint = "make the model with the overrides of the run that the weights are from."
        raise CheckpointError(message("load_backbone", must, weights, lines=_shorten(wrong), hint=hint))
    body.load_state_dict(tensors, strict=False)


def _other_options(body: ResNet, record: ModelRecord) -> list[str]:
    """Name the options in which a backbone differs, which its tensors need not show."""
    try:
        with torch.device("meta"):
            theirs = create_model(record.name, **record.overrides).config
    except LookaroundError as error:
        return [f"{RECORD_NAME} must describe a model that can be made: {error}"]
    options = [field.name for field in dataclasses.fields(ResNetConfig) if field.name not in MAY_DIFFER]
    pairs = [(name, getattr(theirs, name), getattr(body.config, name)) for name in options]
    return [f"{name}: expected {mine!r}; actual: {other!r}" for name, other, mine in pairs if other != mine]


def _shorten(lines: list[str]) -> list[str]:
    return [*lines[:5], f"… and {len(lines) - 5} more"] if len(lines) > 5 else lines


def read_tensors(where: str, path: str | Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file; `where` is who asks.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise CheckpointError(message(where, "the weights file must exist", path))
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        must = "the weights must be a whole safetensors file"
        raise CheckpointError(message(where, must, f"{path} ({error})")) from error


def misfits(model: nn.Module, tensors: dict[str, torch.Tensor]) -> list[str]:
    """Name the tensors that a model lacks, has not, or has in another shape."""
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
