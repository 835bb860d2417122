"""A converted network's files: the round trip, and records that are not what they should be."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lookaround.errors import CheckpointError
from lookaround.integrations.converted import ConversionRecord, load_converted, save_converted
from lookaround.integrations.networks import find_network, make_network
from lookaround.nn import LocalAttention2d, replace_convolutions

NAME = "timm:test_resnet"


def converted(name: str = NAME, **options: Any) -> tuple[nn.Module, ConversionRecord]:
    model = make_network(find_network(name), 5)
    report = replace_convolutions(model, **{"num_heads": 4, "kernel_size": 3, **options})
    return model.eval(), ConversionRecord.of(name, report, 5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model, record = converted()
    save_converted(model, tmp_path / "made" / "here", record)
    return tmp_path / "made" / "here"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (NAME, {}),
        (NAME, {"where": "layer3", "position": "absolute", "border": "zeros", "kernel_size": (3, 5)}),
        ("torchvision:squeezenet1_1", {}),
        ("lookaround:resnet14_small", {"where": (3, 4), "kinds": "*"}),
        ("timm:test_convnext", {"kinds": "depthwise *"}),
    ],
    ids=str,
)
def test_round_trip(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    model, record = converted(name, **options)
    save_converted(model, tmp_path, record)
    again, read = load_converted(tmp_path)
    assert json.loads(json.dumps(read.__dict__)) == json.loads(json.dumps(record.__dict__))
    layers = [name for name, module in again.named_modules() if isinstance(module, LocalAttention2d)]
    assert sorted(layers) == sorted(record.replaced)
    assert not any(module.training for module in again.modules())
    x = torch.randn(1, 3, 40, 33)
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["conversion.json", "weights.safetensors"]


def test_a_shared_layer_is_written_under_both_names(tmp_path: Path) -> None:
    layer = nn.Linear(2, 3)
    save_converted(nn.ModuleDict({"a": layer, "b": layer}), tmp_path, ConversionRecord(NAME))
    assert sorted(load_file(tmp_path / "weights.safetensors")) == ["a.bias", "a.weight", "b.bias", "b.weight"]


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "conversion.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format": 2}, "must have format 1; got 2"),
        ({"network": 5}, "network: expected a string; actual: 5"),
        ({"num_classes": True}, "num_classes: expected an integer or null; actual: True"),
        ({"replaced": "all"}, "replaced: expected a list of strings; actual: 'all'"),
        ({"attention": {"device": "cuda"}}, "attention: expected a mapping of backend, border"),
        ({"attention": {"num_heads": 7}}, "record and weights must be those of .*no convolution that can be"),
        ({"attention": {"num_heads": "x"}}, "must describe a network that can be made; .*num_heads must be"),
        ({"attention": {"backend": []}}, "must describe a network that can be made"),
        (
            {"network": "timm:hf-hub:timm/resnet18"},
            "must describe a network that can be made; .*source must be",
        ),
        ({"network": "timm:test_convnext"}, r"those of timm:test_convnext as it is .*… and \d+ more"),
        ({"num_classes": 7}, r"fc.weight: expected \(7, \d+\); actual: \(5, \d+\)"),
        ({"replaced": ["nowhere"]}, "no convolution that can be replaced: nowhere"),
        ({"more": 1}, "must be a record as save_converted writes it; .*unexpected keyword argument 'more'"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("shapes_unchecked")
def test_records_that_do_not_fit(changes: dict[str, Any], text: str, folder: Path) -> None:
    edit(folder, **changes)
    with pytest.raises(CheckpointError, match=f"(?s){text}"):
        load_converted(folder)


def test_files_that_are_not_there_or_damaged(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="the weights must be a whole safetensors file"):
        load_converted(folder)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match="the weights file must exist"):
        load_converted(folder)
    (folder / "conversion.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="must be a record as save_converted writes it"):
        load_converted(folder)
    with pytest.raises(
        CheckpointError, match=r"(?s)the folder must hold conversion.json; .*lookaround convert"
    ):
        load_converted(folder / "nowhere")
