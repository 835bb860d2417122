"""What tables of finished runs share."""

import json
from pathlib import Path

import pytest

from lookaround.errors import DataError
from lookaround.studies.markdown import markdown_table, words_first
from lookaround.studies.run_tables import describe_environments, read_run_files, with_remarks
from lookaround.training.files import write_json, write_rows


def environment(**changes: object) -> dict[str, object]:
    cpu = {"model": "a processor", "cores": 2, "threads": 1}
    plain = {"cpu": cpu, "gpus": [], "versions": {"torch": "2.15.0"}, "seed": 3, "commit": "0123456789abcdef"}
    return plain | changes


def test_a_table_is_aligned_and_narrow_columns_are_valid_markdown() -> None:
    table = markdown_table(["run", "n"], [["a long name", "7"], ["b", "12"]], words_first(2))
    assert table.splitlines() == [
        "| run         |   n |",
        "| ----------- | --: |",
        "| a long name |   7 |",
        "| b           |  12 |",
    ]


def test_what_runs_share_is_said_once() -> None:
    one = describe_environments([environment(), environment()])
    assert one == "cpu a processor, 2 cores; gpu none; threads 1; torch 2.15.0; seed 3; commit 0123456789ab."
    other = environment(seed=4, gpus=[{"name": "a GPU"}], commit=None)
    two = describe_environments([environment(), other])
    assert "gpu none, a GPU;" in two
    assert two.endswith("seeds 3, 4; commit 0123456789ab, None.")


def test_a_note_stands_last() -> None:
    assert with_remarks("table", "remarks", None) == "table\n\nremarks"
    assert with_remarks("table", "remarks", "note") == "table\n\nremarks\n\nnote"


def test_files_of_a_run(tmp_path: Path) -> None:
    write_json(tmp_path / "test.json", {"test_map": 0.5})
    with pytest.raises(DataError, match=r"the folder must hold environment.json; got .*\nhint: name a run"):
        read_run_files(tmp_path)
    write_json(tmp_path / "environment.json", environment())
    write_rows(
        tmp_path / "metrics.csv", [{"epoch": 1, "epoch_seconds": 10.5}, {"epoch": 2, "epoch_seconds": 9.5}]
    )
    files = read_run_files(tmp_path)
    assert (files.tested, files.epochs, files.train_seconds) == ({"test_map": 0.5}, 2, 20.0)
    assert files.environment == json.loads(json.dumps(environment()))
