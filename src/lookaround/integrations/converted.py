"""The files of a converted network: `weights.safetensors`, and `conversion.json` that says how to make it.

Neither can run code. A network is made again from its name in torchvision, timm or lookaround, its
convolutions are replaced at the places that the record names, and the weights are read into it.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lookaround.errors import CheckpointError, LookaroundError, message
from lookaround.integrations.networks import find_network, make_network
from lookaround.models.checkpoint import misfits, read_tensors
from lookaround.nn.conversion_report import ConversionReport
from lookaround.nn.convert import AttentionOptions, replace_convolutions

WEIGHTS_NAME = "weights.safetensors"
RECORD_NAME = "conversion.json"
FORMAT = 1
SHOWN = 5  # misfits that an error lists
_OPTIONS = {"kernel_size", "num_heads", *AttentionOptions.__annotations__}


@dataclass(frozen=True)
class ConversionRecord:
    """How a converted network is made.

    Attributes:
        network: its name with its source, as in `timm:resnet50`.
        num_classes: size of its last layer; None for what it has by default.
        replaced: the names of its convolutions that are attention.
        attention: options of every `LocalAttention2d`.
    """

    network: str
    num_classes: int | None = None
    replaced: list[str] = field(default_factory=list)
    attention: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, network: str, report: ConversionReport, num_classes: int | None = None) -> "ConversionRecord":
        """Put down what `replace_convolutions` did to a network."""
        return cls(network, num_classes, report.replaced_names, dict(report.options))


def save_converted(model: nn.Module, folder: str | Path, record: ConversionRecord) -> None:
    """Write a converted network's weights and record into a folder, which is made if need be.

    Args:
        model: the network; it is not changed.
        folder: where the two files go, replacing what is there.
        record: how it was made.
    """
    from safetensors.torch import save

    document = json.dumps({"format": FORMAT, **asdict(record)}, indent=2) + "\n"
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    _write(target / WEIGHTS_NAME, save(_tensors_of(model), metadata={"format": "pt"}))
    _write(target / RECORD_NAME, document.encode())


def load_converted(folder: str | Path) -> tuple[nn.Module, ConversionRecord]:
    """Make a converted network again, ready to predict (in eval mode, on the CPU).

    Args:
        folder: what `save_converted` or `lookaround convert` wrote; it may come from anybody.

    Raises:
        CheckpointError: a file is missing or damaged, or the record and the weights do not fit together.
    """
    record = read_conversion(folder)
    try:
        model = make_network(find_network(record.network), record.num_classes)
        names = set(record.replaced)
        # JSON has lists for pairs.
        options: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in record.attention.items()
        }
        report = replace_convolutions(model, lambda name, _: name in names, kinds="*", **options)
    except (LookaroundError, TypeError) as error:
        must = f"{RECORD_NAME} must describe a network that can be made"
        got = f"{Path(folder) / RECORD_NAME} ({error})"
        raise CheckpointError(message("load_converted", must, got)) from error
    absent = sorted(names.difference(report.replaced_names))
    tensors = read_tensors("load_converted", Path(folder) / WEIGHTS_NAME)
    lines = [f"no convolution that can be replaced: {name}" for name in absent] + misfits(model, tensors)
    if lines:
        more = [f"… and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        must = f"record and weights must be those of {record.network} as it is in this installation"
        raise CheckpointError(message("load_converted", must, folder, lines=[*lines[:SHOWN], *more]))
    model.load_state_dict(tensors)
    return model.eval(), record


def read_conversion(folder: str | Path) -> ConversionRecord:
    """Read `conversion.json` in a folder.

    Raises:
        CheckpointError: it is missing, is no JSON, or lacks what a record has.
    """
    path = Path(folder) / RECORD_NAME
    if not path.is_file():
        hint = "name a folder that `lookaround convert MODEL --out FOLDER` wrote."
        must = f"the folder must hold {RECORD_NAME}"
        raise CheckpointError(message("load_converted", must, folder, hint=hint))
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        version = document.pop("format")
        record = ConversionRecord(**document)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        must = f"{RECORD_NAME} must be a record as save_converted writes it"
        raise CheckpointError(message("load_converted", must, f"{path} ({error})")) from error
    if version != FORMAT:
        must = f"{RECORD_NAME} must have format {FORMAT}"
        hint = "a newer version of lookaround may read it."
        raise CheckpointError(message("load_converted", must, f"{version!r} in {path}", hint=hint))
    wrong = _mistyped(record)
    if wrong:
        must = f"{RECORD_NAME} must have the types of ConversionRecord"
        raise CheckpointError(message("load_converted", must, path, lines=wrong))
    return record


def _mistyped(record: ConversionRecord) -> list[str]:
    """Say of every field that has not the type it is declared with what it should be."""
    names, attention = record.replaced, record.attention
    rules = {
        "network": (isinstance(record.network, str), "a string"),
        "num_classes": (record.num_classes is None or type(record.num_classes) is int, "an integer or null"),
        "replaced": (isinstance(names, list) and all(isinstance(n, str) for n in names), "a list of strings"),
        "attention": (
            isinstance(attention, dict) and set(attention) <= _OPTIONS,
            f"a mapping of {', '.join(sorted(_OPTIONS))}",
        ),
    }
    return [
        f"{name}: expected {kind}; actual: {getattr(record, name)!r:.80}"
        for name, (holds, kind) in rules.items()
        if not holds
    ]


def _tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Give the tensors of a state dict, each in memory of its own: a shared module has two names for one."""
    tensors: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, value in model.state_dict().items():
        tensor = value.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if place in places else tensor
        places.add(place)
    return tensors


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
