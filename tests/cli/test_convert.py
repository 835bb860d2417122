import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lookaround.cli.main import main
from lookaround.integrations.converted import load_converted
from lookaround.integrations.networks import find_network, make_network

NAME = "timm:test_resnet"


def convert(*arguments: object) -> int:
    return main(["convert", *map(str, arguments)])


def test_it_prints_what_it_did(capsys):
    assert convert(NAME, "--num-heads", 4, "--stages", "3,4", "--image-size", "33x48") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{NAME}, random weights beside those of the attention"
    assert lines[1].startswith("replaced ")
    assert "3x3, 96 to 96 channels" in "".join(lines)
    assert lines[-1].startswith("GFLOPs at 33x48  0.0")
    assert not any("wrote" in line for line in lines)


def test_what_it_writes_is_loaded_again(tmp_path, capsys):
    out = tmp_path / "converted"
    options = ["--num-heads", 4, "--kernel-size", 5, "--num-classes", 7, "--seed", 3, "--out", out]
    assert convert(NAME, "--where", "layer4", "layer3.0.*", *options) == 0
    assert f"wrote {out}" in capsys.readouterr().out
    model, record = load_converted(out)
    assert record.network == NAME
    assert record.attention == {"kernel_size": 5, "num_heads": 4}
    assert {name[:6] for name in record.replaced} == {"layer3", "layer4"}
    with torch.no_grad():
        assert model(torch.randn(1, 3, 40, 40)).shape == (1, 7)
    first = (out / "weights.safetensors").read_bytes()
    assert convert(NAME, "--where", "layer4", "layer3.0.*", *options) == 0
    assert (out / "weights.safetensors").read_bytes() == first


def test_json(capsys):
    assert convert("test_convnext", "--kinds", "depthwise *", "--num-heads", 4, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["network"] == "timm:test_convnext"
    assert document["other_weights"] == "random"
    assert document["out"] is document["flops_before"] is None
    assert all(row["convolution"].startswith("depthwise") for row in document["replaced"])
    assert document["left"][0]["reasons"]
    assert document["parameters_after"] > 0


def test_it_begins_with_given_weights(tmp_path: Path, capsys):
    state = make_network(find_network(NAME)).state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "w.safetensors")
    assert convert(NAME, "--weights", tmp_path / "w.safetensors", "--num-heads", 4, "--out", tmp_path) == 0
    assert "w.safetensors weights beside" in capsys.readouterr().out
    model, _ = load_converted(tmp_path)
    kept = [name for name, value in model.state_dict().items() if torch.equal(value, state.get(name, value))]
    assert "fc.weight" in kept
    assert "conv1.0.weight" in kept


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["resnet19"], "the network must be one of torchvision, timm, lookaround; got 'resnet19'"),
        ([NAME, "--stages", "3;4"], "stages must be numbers with commas between them, as in 3,4; got '3;4'"),
        ([NAME, "--stages", "9"], "stages must be those of the model; got 9"),
        ([NAME, "--where", "layr3"], "every pattern must match the name of a convolution"),
        ([NAME, "--image-size", "1x2x3"], "an image size must be N or HEIGHTxWIDTH; got '1x2x3'"),
        ([NAME, "--image-size", "big"], "an image size must be N or HEIGHTxWIDTH; got 'big'"),
        ([NAME, "--num-heads", "7"], "some convolution must give way; got none of"),
        ([NAME, "--kernel-size", "4"], "kernel_size must be odd"),
        ([NAME, "--weights", "none.safetensors"], "the weights file must exist; got none.safetensors"),
        ([NAME, "--weights", "a", "--pretrained"], "not allowed with argument"),
    ],
    ids=str,
)
def test_errors_are_one_line(arguments, text, capsys):
    assert convert(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("lookaround convert: error: ")
    assert text in captured.err
    assert captured.err.count("\n") == 1


def test_weights_of_another_network(tmp_path, capsys):
    save_file({"fc.weight": torch.zeros(2)}, tmp_path / "w.safetensors")
    assert convert(NAME, "--weights", tmp_path / "w.safetensors") == 2
    error = capsys.readouterr().err
    assert "the weights must be those of the model before it is converted; got" in error
    assert "missing: conv1.0.weight" in error
    assert "… and" in error
