"""Page and pictures of a study that never ran."""

import json
import random

import pytest
from PIL import Image

from lookaround.cli.main import main
from lookaround.models import Costs
from lookaround.studies.paper_jobs import Data, Request, make_jobs
from lookaround.studies.paper_ledger import Ledger, results_of
from lookaround.studies.paper_page import report
from lookaround.studies.paper_plan import EXPERIMENTS
from lookaround.studies.paper_report import complete, without_paths, write_report
from lookaround.studies.paper_train import Finished
from paper_work import ENVIRONMENT

FASHION = Data("fashion_mnist")


def ledger(out, *names, scale="small", data=FASHION, seeds=3, figures=None):
    """A ledger with figures that were made up."""
    made = Ledger(out, [EXPERIMENTS[name] for name in names], Request(scale, data, seeds=seeds))
    for number, job in enumerate(make_jobs(made.experiments, made.request)):
        accuracy = 0.5 + random.Random(job.name).random() / 10 if figures is None else figures(job)
        if accuracy is not None:
            made.finished[job.name] = Finished(accuracy, accuracy + 0.1, 60.0, ENVIRONMENT)
            made.costs[str(job.network)] = Costs(100_000 + number, 20_000_000, 18_000_000)
    return made


def section(page, title):
    return page.partition(f"## {title}")[2].partition("\n## ")[0]


def cells(text, start):
    line = next(line for line in text.splitlines() if line.startswith(f"| {start} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_has_the_papers_figures_beside_ours(tmp_path):
    whole, position = (0.81, 0.82, 0.83), (0.77, 0.76, 0.78)
    made = ledger(tmp_path, "table6", figures=lambda job: (whole if _content(job) else position)[job.seed])
    page = report(complete(made.results()))
    assert page.startswith("# The paper's tables on Fashion-MNIST, scale small\n\n6 of 6 trainings are done,")
    assert (
        "cpu a processor, 2 cores; gpu none; threads 1; torch 2.15.0; seeds 0, 1, 2; commit 0123456789ab."
        in page
    )
    assert "`lookaround paper run table6 --scale small --data fashion-mnist --seeds 3`" in page
    table = section(page, "Table 6")
    assert "Measured on the test images." in table
    assert cells(table, "q·k + q·r") == [
        *("q·k + q·r", "77.4", "82.00 ± 1.00", "3", "100,005", "20.0", "18.0", "60")
    ]
    assert cells(table, "q·r against")[1:4] == ["-0.5", "-5.00", "-7.48 … -2.52"]
    assert cells(table, "q·r against")[4:] == ["0.013", "holds"]
    assert "1 comparison, 1 with p < 0.05. If nothing differed, 0.05 would be expected by chance." in table
    assert "Kendall" not in table
    assert cells(page, "the content of the keys helps")[-1] == "holds"


def _content(job):
    return job.network.overrides.get("content", True)


def test_each_table_is_on_its_own_images_and_counted(tmp_path):
    made = ledger(tmp_path, "table1", "table3", "border")
    page = report(complete(made.results()), {"table3"})
    assert "Measured on training images that were held out." in section(page, "Table 3")
    assert "![Table 3: which stages attend](table3.png)" in page
    assert "table1.png" not in page
    assert "7 comparisons, " in section(page, "Table 3")
    assert "Order of the 8 rows, the paper's against ours: Kendall's τ " in section(page, "Table 3")
    assert cells(section(page, "Table 3"), "attention stages 4 against")[-1] == "no order in the paper"
    assert cells(section(page, "Border"), "window 3, zeros")[1] == "–"
    assert "Kendall" not in section(page, "Border")
    assert cells(page, "conv stem + attention: fewer parameters")[1] == "-25 %, -28 %, -30 %"
    assert cells(page, "full attention: fewer FLOPs, as executed")[1] == "–"


def test_what_is_not_done_yet_and_what_failed_is_said(tmp_path):
    made = ledger(tmp_path, "table5", figures=lambda job: None if job.seed else 0.7)
    failed = make_jobs(made.experiments, made.request)[-1].name
    made.failed.add(failed)
    page = report(complete(made.results()))
    assert f"3 of 9 trainings are done, with 3 seeds a network. Failed: {failed}." in page
    assert cells(section(page, "Table 5"), "none")[2:4] == ["80.00", "1"]
    assert cells(section(page, "Table 5"), "none against")[2:] == ["+0.00", "–", "–", "not measured yet"]
    empty = report(complete(ledger(tmp_path, "table5", figures=lambda job: None).results()))
    assert "0 of 9 trainings" in empty
    assert "\n\n\n" not in empty


def test_rows_that_are_one_network_are_named(tmp_path):
    page = report(complete(ledger(tmp_path, "beyond", scale="tiny").results()))
    beyond = section(page, "Beyond the paper")
    name = "blocks that attend"
    shared = (
        f"one network, trained once: scale: in the initialization; {name}: all; {name}: the first of each"
    )
    assert shared in beyond
    row = cells(beyond, f"{name}: the last of each stage against")
    assert row[1:] == ["–", "–", "–", "–", "the same network"]


def test_limits_and_other_data_are_in_the_command(tmp_path):
    made = ledger(tmp_path, "table6", "table2", data=Data("folder", "/data/somebody/pets"), seeds=1)
    made.request = Request(
        "tiny", made.request.data, Data("coco", "/data/somebody/coco"), 1, limits=(("images_per_epoch", 64),)
    )
    document = complete(without_paths(made.results()))
    page = report(document)
    assert page.startswith("# The paper's tables on pets and coco, scale tiny")
    command = (
        "table6 table2 --scale tiny --data pets --seeds 1 --detection-data coco --limit-images-per-epoch 64"
    )
    assert f"`lookaround paper run {command}`" in page
    assert "/data" not in json.dumps(document)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """One picture of each kind."""
    out = tmp_path_factory.mktemp("drawn")
    names = ("table1", "table4", "table5", "border", "table2")
    write_report(ledger(out, *names).results(), out, draw=names)
    return out


@pytest.mark.parametrize("name", ["table1", "table4", "table5", "border", "table2"])
def test_every_kind_of_picture_is_drawn(drawn, name):
    with Image.open(drawn / f"{name}.png") as picture:
        width, height = picture.size
        colours = len(picture.convert("RGB").getcolors(width * height))
    assert width > 800
    assert height > 200
    assert colours > 20
    assert f"]({name}.png)" in (drawn / "results.md").read_text()


def test_a_picture_without_figures_is_not_drawn_and_not_left(tmp_path):
    (tmp_path / "table5.png").touch()
    paths = write_report(ledger(tmp_path, "table5", figures=lambda job: None).results(), tmp_path, ["table5"])
    assert [path.name for path in paths] == ["results.json", "results.md"]
    assert "table5.png" not in (tmp_path / "results.md").read_text()
    assert not (tmp_path / "table5.png").exists()


def test_the_command_makes_a_report_elsewhere_and_of_kept_results_alone(tmp_path, capsys):
    data = Data("folder", "/data/somebody/pets")
    write_report(ledger(tmp_path, "table6", data=data).results(), tmp_path)
    kept = tmp_path / "kept"
    assert main(["paper", "report", str(tmp_path), "--out", str(kept)]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(kept / "results.md")
    assert sorted(path.name for path in kept.iterdir()) == ["results.json", "results.md", "table6.png"]
    assert "/data" not in (kept / "results.json").read_text()
    assert not (tmp_path / "table6.png").exists()
    before = (kept / "results.md").read_text()
    (kept / "results.md").unlink()
    assert main(["paper", "report", str(kept)]) == 0
    assert (kept / "results.md").read_text() == before


def test_where_the_runs_are_their_folders_are_read(tmp_path):
    write_report(ledger(tmp_path, "table6").results(), tmp_path)
    assert results_of(tmp_path)["experiments"]["table6"]["rows"][0]["mean"] is not None
    (tmp_path / "runs").mkdir()
    assert results_of(tmp_path)["experiments"]["table6"]["rows"][0]["mean"] is None


def test_a_folder_without_results_is_refused(tmp_path, capsys):
    assert main(["paper", "report", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert (
        f"paper report: the folder must hold results.json; got {tmp_path}. hint: name the --out of" in error
    )
    (tmp_path / "file").touch()
    assert main(["paper", "report", str(tmp_path), "--out", str(tmp_path / "file")]) == 2
    assert "--out must be a folder; got" in capsys.readouterr().err
