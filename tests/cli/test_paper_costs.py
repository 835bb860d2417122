import json
from contextlib import contextmanager

import pytest

from lookaround.cli import bench
from lookaround.cli.main import main


def test_the_table_is_printed_and_written(tmp_path, capsys):
    files = (tmp_path / "new" / "costs.md", tmp_path / "costs.json")
    options = ["--markdown", str(files[0]), "--json", str(files[1])]
    assert main(["paper", "costs", "table6", *options]) == 0
    printed = capsys.readouterr().out
    assert files[0].read_text() == printed
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["Table 6", "Table 6"]
    assert [cell.strip() for cell in lines[2].split("|")[3:6]] == ["16.7", "16.758", "+0.06"]
    rows = json.loads(files[1].read_text())["rows"]
    assert [row["costs"]["parameters"] for row in rows] == [16_758_032, 18_015_504]
    assert rows[1]["printed"]["flops_billions"] == 7.0
    assert rows[1]["flops_deviation_billions"] == pytest.approx(0, abs=0.001)
    assert rows[0]["note"] == ""


def test_an_unknown_table_is_one_line(capsys):
    assert main(["paper", "costs", "figure6"]) == 2
    error = capsys.readouterr().err
    assert "tables must be ones of the paper; got 'figure6'" in error
    assert "did you mean 'figure5'" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(("option", "ending"), [("--markdown", ".md"), ("--json", ".json")])
def test_a_file_that_cannot_be_written_is_refused_at_once(tmp_path, capsys, option, ending):
    assert main(["paper", "costs", option, str(tmp_path / "costs.txt")]) == 2
    assert f"paper costs: {option} must end in {ending}" in capsys.readouterr().err
    folder = tmp_path / f"folder{ending}"
    folder.mkdir()
    assert main(["paper", "costs", option, str(folder)]) == 2
    assert f"{option} must be a file in a folder" in capsys.readouterr().err


def test_progress_is_shown_on_a_terminal_alone(monkeypatch, capsys):
    shown = []

    @contextmanager
    def progress(wanted):
        shown.append(wanted)
        yield lambda group, name, steps: None

    monkeypatch.setattr(bench, "progress", progress)
    assert main(["paper", "costs", "table6"]) == 0
    assert shown == [False]
    assert capsys.readouterr().err == ""
