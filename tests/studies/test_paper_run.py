import json

import pytest
import yaml

import paper_work
from lookaround.cli.main import main
from lookaround.errors import ArgumentError, ConfigError, DataError
from lookaround.studies import paper_train
from lookaround.studies.paper_jobs import Data, Job, Request
from lookaround.studies.paper_networks import Network
from lookaround.studies.paper_plan import choose_experiments
from lookaround.studies.paper_report import write_report
from lookaround.studies.paper_results import collect_results
from lookaround.studies.paper_run import Study
from lookaround.studies.paper_train import ERROR

REQUEST = Request(scale="tiny", data=Data("digits"), seeds=2)


def study(out, *names, request=REQUEST, lines=None, **options):
    said = [] if lines is None else lines
    return Study(out, choose_experiments(names), request, said.append, paper_work.train, **options)


def run(one):
    one.run(engine=paper_work.HereCrew)
    return one


def starts(out):
    return (out / paper_work.STARTS).read_text().splitlines()


def test_a_study_keeps_what_is_done_and_mends_what_failed(tmp_path):
    lines = []
    first = run(study(tmp_path, "table5", "table6", lines=lines))
    # Of five rows one is shared, and the row without positions fails.
    assert len(starts(tmp_path)) == len(set(starts(tmp_path))) == 8
    assert len(first.finished) == 6
    assert len(first.failed) == 2
    assert lines[0].startswith("table5, table6: 5 rows, 2 seeds, 8 trainings; run folders in ")
    assert sum("FAILED: train: the position must be known; got none." in line for line in lines) == 2
    assert "[8/8, 2 failed]" in lines[-1]
    failed = next(iter(first.failed))
    assert "hint: mend it." in (tmp_path / "runs" / failed / ERROR).read_text()
    assert f"Failed: {', '.join(first.failed)}." in (tmp_path / "results.md").read_text()
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["table5.png", "table6.png"]

    (tmp_path / "mended").touch()
    lines.clear()
    second = run(study(tmp_path, "table5", "table6", lines=lines))
    assert len(starts(tmp_path)) == 10, "what was finished ran again"
    assert not second.failed
    assert not (tmp_path / "runs" / failed / ERROR).exists()
    assert "6 of them done already" in lines[0]

    run(study(tmp_path, "table6"))
    assert len(starts(tmp_path)) == 10
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["experiments"]) == ["table5", "table6"], "the rows of an earlier call were lost"
    assert results["environments"] == [paper_work.ENVIRONMENT]
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


def test_pages_follow_each_run_and_pictures_now_and_then(tmp_path, monkeypatch):
    written = []
    name = "lookaround.studies.paper_ledger.write_report"
    monkeypatch.setattr(name, lambda document, out, draw: written.append(sorted(draw)))
    one = Request(scale="tiny", data=Data("digits"), seeds=1)
    run(study(tmp_path / "rarely", "table5", "table6", request=one))
    assert written == [[]] * 5 + [["table5", "table6"]]
    written.clear()
    run(study(tmp_path / "often", "table5", "table6", request=one, draw_seconds=0.0))
    both = ["table5", "table6"]  # they have a network in common
    assert written == [[], ["table5"], ["table5"], both, ["table6"], both]


def test_results_of_something_else_are_refused(tmp_path):
    write_report(collect_results((), REQUEST, {}, {}), tmp_path)
    other = Request(scale="small", data=Data("digits"))
    with pytest.raises(ConfigError, match="--out must be empty or hold results of the same scale; got tiny"):
        study(tmp_path, "table6", request=other).run()


def test_some_workers_are_needed(tmp_path):
    with pytest.raises(ArgumentError, match="--workers must be at least 1; got 0"):
        study(tmp_path, "table6").run(workers=0)


def folder_request(tmp_path, *parts):
    for part in parts:
        (tmp_path / "images" / part).mkdir(parents=True)
    return Request(scale="tiny", data=Data("folder", str(tmp_path / "images")), seeds=1)


def test_a_folder_without_test_images_is_refused_before_anything_is_trained(tmp_path):
    request = folder_request(tmp_path, "train")
    must = (
        "table1, border must have test images: a folder 'test' or 'val' beside 'train'; got neither in "
        "'.*images'.\nhint: add the folder, or run table3 and table5 alone"
    )
    with pytest.raises(DataError, match=must):
        run(study(tmp_path / "out", "table1", "table3", "border", request=request))
    assert not (tmp_path / "out").exists()


def test_tables_on_held_out_images_need_no_others(tmp_path):
    lines = []
    request = folder_request(tmp_path, "train")
    done = run(study(tmp_path / "out", "table5", request=request, lines=lines))
    assert lines[0] == "there are no test images: measured on held-out training images alone"
    assert lines[-1].endswith("test –, held out 25.00%, 0 s")
    assert len(done.finished) == 2


@pytest.mark.parametrize("part", ["test", "val"])
def test_a_folder_of_either_name_is_the_test(tmp_path, part):
    request = folder_request(tmp_path, "train", part)
    assert len(run(study(tmp_path / "out", "table6", request=request)).finished) == 2


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


def test_a_detector_is_told_where_its_backbone_is(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(paper_train, "_fit", lambda words, folder: told.append(words))
    settings = {"model": {"model": "any"}, "data": {"dataset": "coco", "root": "here"}}
    detector = Job("detector", Network("any", {}), "detection", 0, settings, "classifier")
    paper_train.train(tmp_path, detector)
    recipe = yaml.safe_load((tmp_path / "detector" / "recipe.yaml").read_text())
    assert recipe["model"] == {"model": "any", "backbone": str(tmp_path / "classifier")}
    assert told[0][1] == str(tmp_path / "detector" / "recipe.yaml")
    assert "backbone" not in settings["model"]


@pytest.mark.slow
def test_two_rows_are_trained_on_digits(tmp_path, capsys):
    options = ["--scale", "tiny", "--data", "digits", "--seeds", "1", "--out", str(tmp_path)]
    assert main(["paper", "run", "table6", *options]) == 0
    assert "results: " in capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    for row in results["experiments"]["table6"]["rows"]:
        folder = tmp_path / "runs" / row["runs"][0]["run"]
        assert (folder / "config.yaml").is_file()
        assert "epoch 1/1" in (folder / "log.txt").read_text()
        assert row["mean"] == json.loads((folder / "test.json").read_text())["test_accuracy"]
        assert not (folder / "checkpoints").exists()
    assert results["environments"][0]["cpu"]["threads"] >= 1
    assert main(["paper", "run", "table6", *options]) == 0
    assert "2 of them done already" in capsys.readouterr().out
