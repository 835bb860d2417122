import json

import pytest

import paper_work
from lookaround.cli.main import main
from lookaround.errors import ArgumentError, ConfigError
from lookaround.studies.paper_jobs import Data, Request
from lookaround.studies.paper_plan import choose_experiments
from lookaround.studies.paper_run import Study
from lookaround.studies.paper_train import ERROR

REQUEST = Request(scale="tiny", data=Data("digits"), seeds=2)


def study(out, *names, request=REQUEST, lines=None):
    said = [] if lines is None else lines
    return Study(out, choose_experiments(names), request, say=said.append, train=paper_work.train)


def starts(out):
    return (out / paper_work.STARTS).read_text().splitlines()


def test_a_study_keeps_what_is_done_and_mends_what_failed(tmp_path):
    lines = []
    first = study(tmp_path, "table5", "table6", lines=lines)
    first.run(workers=2)
    # Of five rows one is shared, and the row without positions fails.
    assert len(starts(tmp_path)) == len(set(starts(tmp_path))) == 8
    assert len(first.finished) == 6
    assert len(first.failed) == 2
    assert lines[0].startswith("table5, table6: 5 rows, 2 seeds, 8 trainings; run folders in ")
    assert sum("FAILED: train: the position must be known; got none." in line for line in lines) == 2
    assert "[8/8, 2 failed]" in lines[-1]
    failed = next(iter(first.failed))
    assert "hint: mend it." in (tmp_path / "runs" / failed / ERROR).read_text()

    (tmp_path / "mended").touch()
    lines.clear()
    second = study(tmp_path, "table5", "table6", lines=lines)
    second.run()
    assert len(starts(tmp_path)) == 10, "what was finished ran again"
    assert not second.failed
    assert not (tmp_path / "runs" / failed / ERROR).exists()
    assert "6 of them done already" in lines[0]

    study(tmp_path, "table6").run()
    assert len(starts(tmp_path)) == 10
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["experiments"]) == ["table5", "table6"], "the rows of an earlier call were lost"
    check_rows(results["experiments"])


def check_rows(experiments):
    none, absolute, relative = experiments["table5"]["rows"]
    assert relative["measured_on"] == "held-out"
    assert relative["paper"]["percent"] == 80.2
    assert [run["figure"] for run in relative["runs"]] == [0.25, 0.35]
    assert relative["mean"] == pytest.approx(0.3)
    assert relative["standard_deviation"] == pytest.approx(0.05 * 2**0.5)
    assert none["mean"] == absolute["mean"]
    both = experiments["table6"]["rows"][1]
    assert [run["run"] for run in both["runs"]] == [run["run"] for run in relative["runs"]]
    assert [run["figure"] for run in both["runs"]] == [0.5, 0.6]
    assert both["parameters"] > experiments["table6"]["rows"][0]["parameters"] > 0
    assert both["runs"][0]["train_seconds"] == 2


def test_results_of_something_else_are_refused(tmp_path):
    study(tmp_path, "table6").run()
    other = Request(scale="small", data=Data("digits"))
    with pytest.raises(ConfigError, match="--out must be empty or hold results of the same scale; got tiny"):
        study(tmp_path, "table6", request=other).run()


def test_some_workers_are_needed(tmp_path):
    with pytest.raises(ArgumentError, match="--workers must be at least 1; got 0"):
        study(tmp_path, "table6").run(workers=0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["table8"], "tables must be known; got 'table8'. hint: did you mean 'table7'"),
        (["table1", "--scale", "smal"], "--scale must be known; got 'smal'. hint: did you mean 'small'"),
        (["table1", "--seeds", "0"], "--seeds must be at least 1; got 0"),
        (["table1", "--limit-epochs", "0"], "--limit-epochs must be at least 1; got 0"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, said, capsys, tmp_path):
    assert main(["paper", "run", *arguments, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lookaround paper: error: paper run: ")
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_two_rows_are_trained_on_digits(tmp_path, capsys):
    options = ["--scale", "tiny", "--data", "digits", "--seeds", "1", "--out", str(tmp_path)]
    assert main(["paper", "run", "table6", *options]) == 0
    assert "results: " in capsys.readouterr().out
    rows = json.loads((tmp_path / "results.json").read_text())["experiments"]["table6"]["rows"]
    for row in rows:
        folder = tmp_path / "runs" / row["runs"][0]["run"]
        assert (folder / "config.yaml").is_file()
        assert "epoch 1/1" in (folder / "log.txt").read_text()
        assert row["mean"] == json.loads((folder / "test.json").read_text())["test_accuracy"]
        assert not (folder / "checkpoints").exists()
    assert main(["paper", "run", "table6", *options]) == 0
    assert "2 of them done already" in capsys.readouterr().out
