"""A run's weights as the package ships them: float16, with their record, and a card with what they reach.

The figures are those of the float16 weights: the run's test is repeated with them.
"""

import dataclasses
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from lookaround.errors import ArgumentError, DataError, message
from lookaround.models.checkpoint import read_tensors, save_record
from lookaround.models.record import SHIPPED, WEIGHTS_NAME
from lookaround.training.card_facts import FIGURES, read_card_facts
from lookaround.training.command import run_command
from lookaround.training.files import replacing, write_text
from lookaround.training.model_card import write_card
from lookaround.training.run_folder import RunFolder

MOST_BYTES = 2_000_000
CARD_NAME = "card.md"


def ship_weights(run: Path, tag: str, into: Path = SHIPPED, say: Callable[[str], None] = print) -> Path:
    """Write weights, record and card of a run that was trained and tested.

    Args:
        run: its folder.
        tag: name of the weights, a folder of `into` that is made or replaced.
        into: where the package looks for weights, if not told otherwise.
        say: what to do with a line for the user.

    Returns:
        The folder that was written.

    Raises:
        DataError: the run was not tested, or its weights are too large to ship.
        ArgumentError: the tag is not the name of a folder.
        CheckpointError: the folder is not that of a run.
    """
    if not tag.isidentifier():
        must = "--tag must be of letters, digits and underscores, a letter first"
        raise ArgumentError(message("hub pack", must, repr(tag)))
    facts = read_card_facts(run)
    if not facts.tested or not facts.settings:
        hint = "run `lookaround test` on the run first."
        raise DataError(message("hub pack", "the run must have been trained and tested", run, hint=hint))
    tensors = {key: _halved(value) for key, value in read_tensors("hub pack", run / WEIGHTS_NAME).items()}
    content = save(tensors, metadata={"format": "pt"})
    if len(content) > MOST_BYTES:
        must = f"weights that ship must have at most {MOST_BYTES:,} bytes"
        raise DataError(message("hub pack", must, f"{len(content):,}", hint="train a narrower network."))
    measured = measure(run, tensors, facts.settings)
    figures = {name: measured[name] for name in FIGURES if measured.get(name) is not None}
    for name, value in figures.items():
        form = FIGURES[name][2]
        say(f"{FIGURES[name][0]}: {facts.tested[name]:{form}} in float32, {value:{form}} as shipped")
    folder = into / tag
    with replacing(folder / WEIGHTS_NAME) as temporary:
        temporary.write_bytes(content)
    record = dataclasses.replace(facts.record, metrics=facts.record.metrics | figures)
    save_record(record, folder)
    remark = "The weights were rounded to float16, and the figures are those of the rounded weights."
    shipped = dataclasses.replace(facts, record=record, tested=measured, remarks=(remark,))
    write_text(folder / CARD_NAME, write_card(shipped))
    return folder


def measure(run: Path, tensors: dict[str, Tensor], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Repeat the test of a run with other weights of its network; nothing of the run is changed.

    Args:
        run: folder of the run.
        tensors: the weights, in any floating-point type.
        settings: `config.yaml` of the run.

    Returns:
        What `test.json` would hold.
    """
    last = RunFolder(run).checkpoint("last", "hub pack")
    checkpoint = torch.load(last, map_location="cpu", weights_only=True)
    state = checkpoint["state_dict"]
    for key, value in tensors.items():
        state[f"network.{key}"] = value.to(state[f"network.{key}"].dtype)
    with tempfile.TemporaryDirectory() as out:
        copied = RunFolder.of(out, "shipped")
        copied.checkpoints.mkdir(parents=True)
        torch.save(checkpoint, copied.last_checkpoint)
        words = ["--config", str(run / "config.yaml"), "--out", out, "--name", "shipped"]
        if settings["model"].get("backbone") is not None:
            words += ["--model.backbone", "null"]  # it has been read long ago, and may be gone
        run_command("test", words)
        found: dict[str, Any] = json.loads((copied.path / "test.json").read_text(encoding="utf-8"))
    return found


def _halved(value: Tensor) -> Tensor:
    return value.half() if value.is_floating_point() else value
