"""A model's two files: read back bit for bit, written whole or not at all, refused when wrong."""

import dataclasses
import json
import os
import pickle
import struct
from pathlib import Path

import pytest
import torch

from lookaround.errors import ArgumentError, CheckpointError
from lookaround.models import ModelRecord, ResNet, create_model, load_model, load_weights, save_model
from lookaround.models.checkpoint import RECORD_NAME, WEIGHTS_NAME, read_record

TINY = {"width": 0.125, "num_classes": 3, "in_channels": 1, "num_heads": 2}
DESCRIPTION = {
    "preprocessing": {"image_size": 8, "mean": [0.5]},
    "class_names": ["null", "eins", "zwei ½"],
    "metrics": {"test_accuracy": 0.975, "epochs": 3},
    "category_ids": [7, 9, 90],
}


def make(name: str = "sasa_resnet14_small", **overrides) -> ResNet:
    return create_model(name, **{**TINY, **overrides})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(make(), tmp_path / "run", **DESCRIPTION)
    return tmp_path / "run"


def change(folder: Path, **fields: object) -> None:
    path = folder / RECORD_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize("name", ["resnet14_small", "sasa_resnet14_convstem_small", "sasa_resnet14_small"])
def test_a_model_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    model = make(name, kernel_size=(3, 5), attention_stages=(1, 4)).train()
    model(torch.randn(4, 1, 12, 12))  # moves the statistics of the batch norms
    before = {key: value.clone() for key, value in model.state_dict().items()}
    save_model(model, tmp_path, **DESCRIPTION)
    assert model.training
    again, record = load_model(tmp_path)
    assert not again.training
    assert again.config == model.config
    assert list(again.state_dict()) == list(before)
    for key, value in again.state_dict().items():
        assert torch.equal(value, before[key]), key
        assert torch.equal(model.state_dict()[key], before[key]), key
    assert dataclasses.asdict(record) == {"name": name, "overrides": model.config.overrides(), **DESCRIPTION}


@pytest.mark.parametrize("inside", ["", WEIGHTS_NAME, RECORD_NAME])
@pytest.mark.parametrize("kind", [str, Path])
def test_the_folder_or_either_file_names_a_model(folder: Path, inside: str, kind: type) -> None:
    model, record = load_model(kind(folder / inside))
    assert record.name == model.config.name == "sasa_resnet14_small"


def test_the_description_may_be_left_out(tmp_path: Path) -> None:
    save_model(make(), tmp_path)
    _, record = load_model(tmp_path)
    assert (record.preprocessing, record.class_names, record.metrics) == ({}, [], {})


def test_memory_format_and_views_do_not_matter(tmp_path: Path) -> None:
    model = make().to(memory_format=torch.channels_last)
    save_model(model, tmp_path)
    again, _ = load_model(tmp_path)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in again.state_dict().items())


def test_the_files_hold_plain_data(folder: Path) -> None:
    """JSON, and a header of JSON before raw numbers: nothing that could run."""
    assert sorted(os.listdir(folder)) == [RECORD_NAME, WEIGHTS_NAME]
    content = (folder / WEIGHTS_NAME).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    tensors = make().state_dict()
    assert sorted(header) == sorted([*tensors, "__metadata__"])
    end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    assert len(content) == 8 + length + end
    assert json.loads((folder / RECORD_NAME).read_text(encoding="utf-8"))["format"] == 1


class Bomb:
    """Leaves a mark when it is unpickled."""

    mark: Path

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("name", [WEIGHTS_NAME, RECORD_NAME])
@pytest.mark.parametrize("by", ["pickle", "torch"])
def test_nothing_is_ever_unpickled(folder: Path, name: str, by: str, tmp_path: Path) -> None:
    Bomb.mark = tmp_path / "ran"
    if by == "torch":
        torch.save({"fc.weight": Bomb()}, folder / name)
    else:
        (folder / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError):
        load_model(folder)
    assert not Bomb.mark.exists()


def test_saving_replaces_what_was_there(folder: Path) -> None:
    model = make(num_classes=5)
    save_model(model, folder)
    again, record = load_model(folder)
    assert (again.fc.out_features, record.class_names) == (5, [])


@pytest.mark.parametrize("breaks", ["os.replace", "pathlib.Path.write_bytes"])
def test_a_failure_leaves_the_old_files_and_no_others(
    folder: Path, breaks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*arguments: object) -> None:
        if breaks != "os.replace":
            (folder / f".{WEIGHTS_NAME}.{os.getpid()}.tmp").touch()  # half a file, as on a full disk
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(breaks, fail)
    with pytest.raises(OSError, match="No space left"):
        save_model(make(), folder)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"metrics": {"loss": torch.zeros(1)}},
            r"metrics: expected a mapping of names to numbers; actual: \{'loss'",
        ),
        ({"class_names": ["a", 1]}, r"class_names: expected a list of strings; actual: \['a', 1\]"),
        ({"preprocessing": [1]}, r"preprocessing: expected a mapping; actual: \[1\]"),
    ],
)
def test_a_record_that_could_not_be_read_is_not_written(fields: dict, words: str, tmp_path: Path) -> None:
    must = "save_model: the record must have the types of ModelRecord"
    with pytest.raises(ArgumentError, match=rf"{must}; got 1 other\.\n  {words}"):
        save_model(make(), tmp_path / "run", **fields)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("path", ["nowhere", "nowhere/weights.safetensors", "empty", "file.txt"])
def test_a_missing_record_is_named(path: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").touch()
    with pytest.raises(
        CheckpointError, match=r"load_model: the folder must hold model\.json; got .*\nhint: name"
    ):
        load_model(tmp_path / path)


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / WEIGHTS_NAME).unlink()
    with pytest.raises(
        CheckpointError, match=r"load_weights: the weights file must exist; got .*safetensors"
    ):
        load_model(folder)


@pytest.mark.parametrize("keep", [0, 4, 8, 200, -1])
def test_damaged_weights_are_named(folder: Path, keep: int) -> None:
    content = (folder / WEIGHTS_NAME).read_bytes()
    (folder / WEIGHTS_NAME).write_bytes(content[:keep])
    with pytest.raises(
        CheckpointError, match="load_weights: the weights must be a whole safetensors file; got"
    ):
        load_model(folder)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[]", b"null", b"7", b"{}", b"\xff\xfe\x00", b"[" * 100_000),
        *(b'{"format": 1, "name": "resn', b'{"name": "resnet14_small"}', b'{"format": 1}'),
        b'{"format": 1, "name": "a", "colour": 2}',
    ],
)
def test_a_record_that_is_none_is_named(folder: Path, content: bytes) -> None:
    (folder / RECORD_NAME).write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"load_model: model\.json must be a record as save_model writes it"
    ):
        load_model(folder)


@pytest.mark.parametrize("version", [2, "1", None])
def test_a_record_of_another_format_is_named(folder: Path, version: object) -> None:
    change(folder, format=version)
    must = rf"load_model: model\.json must have format 1; got {version!r} in .*\nhint: a newer"
    with pytest.raises(CheckpointError, match=must):
        load_model(folder)


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": 5}, "name: expected a string; actual: 5"),
        ({"name": None}, "name: expected a string; actual: None"),
        ({"overrides": [1]}, r"overrides: expected a mapping without 'name'; actual: \[1\]"),
        ({"overrides": {"name": "resnet50"}}, "overrides: expected a mapping without 'name'"),
        ({"preprocessing": "none"}, "preprocessing: expected a mapping; actual: 'none'"),
        ({"class_names": "abc"}, "class_names: expected a list of strings; actual: 'abc'"),
        ({"class_names": {"0": "a"}}, "class_names: expected a list of strings"),
        ({"class_names": ["a", None]}, "class_names: expected a list of strings"),
        ({"metrics": [0.5]}, "metrics: expected a mapping of names to numbers"),
        ({"metrics": {"accuracy": "good"}}, "metrics: expected a mapping of names to numbers"),
        ({"name": 1, "metrics": None}, "name: expected a string; actual: 1\n  metrics: expected"),
    ],
)
def test_fields_of_the_wrong_type_are_all_named(folder: Path, fields: dict, words: str) -> None:
    change(folder, **fields)
    with pytest.raises(
        CheckpointError, match=rf"model\.json must have the types of ModelRecord; got .*\n  {words}"
    ):
        read_record(folder)


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "resnet5000"}, "name must be a known model; got 'resnet5000'"),
        ({"overrides": {"wdith": 1}}, "overrides must be known; got 'wdith'"),
        ({"overrides": {"width": "a"}}, "width must be a finite number; got 'a'"),
        ({"overrides": {"attention_stages": [[1], {}]}}, "attention_stages must be taken from"),
    ],
)
def test_a_record_of_a_model_that_cannot_be_made_is_named(folder: Path, fields: dict, words: str) -> None:
    change(folder, **fields)
    must = r"load_model: model\.json must describe a model that can be made"
    with pytest.raises(CheckpointError, match=rf"{must}; got (.|\n)*{words}"):
        load_model(folder)


def test_weights_of_another_model_are_named_and_change_nothing(folder: Path) -> None:
    other = make("resnet14_small", num_classes=4)
    before = {key: value.clone() for key, value in other.state_dict().items()}
    expected = (
        r"load_weights: the weights must be those of resnet14_small; got (.|\n)*"
        r"missing: stem\.conv\.weight(.|\n)*… and \d+ more\nhint: load them into the model that model\.json"
    )
    with pytest.raises(CheckpointError, match=expected):
        load_weights(other, folder / WEIGHTS_NAME)
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())


def test_weights_of_another_size_are_named(folder: Path) -> None:
    change(folder, overrides={**make().config.overrides(), "num_classes": 4})
    with pytest.raises(CheckpointError, match=r"fc\.weight: expected \(4, 256\); actual: \(3, 256\)\n"):
        load_model(folder)


def test_a_record_is_read_without_its_weights(folder: Path) -> None:
    (folder / WEIGHTS_NAME).unlink()
    record = read_record(str(folder))
    assert isinstance(record, ModelRecord)
    assert record.metrics == DESCRIPTION["metrics"]
