import json

import pytest

from lookaround.training.files import read_rows, replacing, write_json, write_rows, write_text


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_text(path, "one")
    with pytest.raises(RuntimeError, match="half"):
        write_half(path, "tw")
    assert path.read_text() == "one"
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]


def write_half(path, text):
    with replacing(path) as temporary:
        temporary.write_text(text)
        raise RuntimeError("half")


def test_json(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, 2.5, None]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1, 2.5, None]}


def test_rows_come_back_with_their_bits(tmp_path):
    rows = [{"epoch": 1, "loss": 0.1 + 0.2}, {"epoch": 2, "loss": 1e-9, "more": -3.0}]
    write_rows(tmp_path / "a.csv", rows)
    assert (tmp_path / "a.csv").read_text().splitlines()[0] == "epoch,loss,more"
    assert read_rows(tmp_path / "a.csv") == rows
    assert read_rows(tmp_path / "none.csv") == []
