"""Every suite of the benchmark from the command line to its files, in the quick form."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lookaround.cli.main import main
from lookaround.studies.bench_context import MATRIX_PRODUCT
from lookaround.studies.benchmark import SUITES, describe_conditions

CONTESTANTS = {
    "layer": {"blocked forward", "blocked backward", "attention training", "convolution forward"},
    "network": {"sasa_resnet14_small, folded", "torchvision one block a stage, eager"},
    "detection": {
        "torchvision retinanet, one block a stage",
        "small convolution heads, baseline",
        "small attention heads, full attention",
    },
    "memory": {"blocked", "reference", "torchvision one block a stage"},
    "scaling": {"4 forward", "8 training"},
    "peers": {"lookaround", "unfold", "shifted adds", "timm HaloAttn", "nn.Conv2d 3x3"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


def run_quick(suite: str, folder: Path, *more: str) -> dict[str, Any]:
    files = ["--json", str(folder / f"{suite}.json"), "--chart", str(folder / f"{suite}.png")]
    assert main(["bench", suite, "--quick", "--threads", "1", *files, *more]) == 0
    return json.loads((folder / f"{suite}.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_suite_from_the_command_line_to_the_files(
    suite: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = run_quick(suite, folder)
    printed = capsys.readouterr()
    assert {row["contestant"] for row in record["measurements"]} >= {MATRIX_PRODUCT, *CONTESTANTS[suite]}
    assert all(table["rows"] for table in record["tables"])
    assert all(table["title"] in printed.out for table in record["tables"])
    assert printed.out == (folder / f"{suite}.md").read_text()
    assert printed.err.split() == [str(folder / f"{suite}.{ending}") for ending in ("json", "md", "png")]
    with Image.open(folder / f"{suite}.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > picture.height > 200
    assert sorted(path.suffix for path in folder.glob(f"*{suite}*")) == [".json", ".md", ".png"]


@pytest.mark.slow
def test_record_says_on_what_and_how_it_was_measured(folder: Path) -> None:
    record = run_quick("layer", folder, "--dtype", "bfloat16", "--batch-size", "3", "--repeats", "4")
    settings, environment = record["settings"], record["environment"]
    assert (settings["repeats"], settings["threads"], settings["batch_size"]) == (4, 1, 3)
    assert {"commit", "cpu", "gpus", "versions", "python"} <= set(environment)
    assert environment["cpu"]["threads"] == 1
    for row in record["measurements"]:
        low, high = row["minimum_seconds"], row["maximum_seconds"]
        assert row["repeats"] == len(row["samples_seconds"]) == 4
        assert 0 < low <= row["lower_quartile_seconds"] <= row["median_seconds"]
        assert row["median_seconds"] <= row["upper_quartile_seconds"] <= high
    text = describe_conditions(record)
    for words in (
        "Medians of 4 samples",
        "bfloat16",
        "1 threads of",
        "lookaround bench layer",
        "mean nothing",
    ):
        assert words in text
    # A figure of another size or dtype has no target to meet.
    assert {row["target"] for row in record["tables"][1]["rows"]} == {None}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--repeats", "0"], "--repeats must be at least 1; got 0"),
        (["--threads", "-1"], "--threads must be at least 1; got -1"),
        (["--batch-size", "0"], "--batch-size must be at least 1; got 0"),
        (["--image-size", "0"], "--image-size must be at least 1; got 0"),
        (["--image-size", "64"], "--image-size must be left to the suites network and detection; got it for"),
        (["--dtype", "int8"], "--dtype must be one of float32, bfloat16, float16; got int8"),
        (["--device", "tpu"], "--device must be cpu, cuda or cuda:N; got 'tpu'"),
        (["--device", "meta"], "--device must be cpu, cuda or cuda:N; got 'meta'"),
        (["--json", "results.txt"], "--json must end in .json; got results.txt"),
        (["--chart", "chart.jpg"], "--chart must end in .png; got chart.jpg"),
        (["--json", "setup.cfg/results.json"], "--json must be a file in a folder"),
        (["--chart", "folder.png"], "--chart must be a file in a folder"),
    ],
)
def test_arguments_that_cannot_be_used(
    options: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "setup.cfg").write_text("a file")
    (tmp_path / "folder.png").mkdir()
    assert main(["bench", "layer", "--quick", *options]) == 2
    assert words in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.png", "setup.cfg"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "layer", "--device", "cuda"]) == 2
    assert "torch must see the device; got 'cuda', and none is there" in capsys.readouterr().err


def test_an_unknown_suite_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "speed"]) == 2
    error = capsys.readouterr().err
    assert all(suite in error for suite in SUITES)


def test_threads_are_as_before(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    assert main(["bench", "scaling", "--quick", "--repeats", "1", "--threads", str(before + 1)]) == 0
    assert torch.get_num_threads() == before


def test_progress_has_a_bar_for_each_group(capsys: pytest.CaptureFixture[str]) -> None:
    from lookaround.cli.bench import progress

    with progress(shown=True) as tick:
        for name in ("left", "right"):
            tick("layer, 7x7", name, 2)
    assert "layer, 7x7: right" in capsys.readouterr().err
    with progress(shown=False) as tick:
        tick("layer, 7x7", "left", 2)
    assert capsys.readouterr().err == ""


def test_the_page_takes_tables_and_leaves_every_measurement_out() -> None:
    path = Path(__file__).parents[2] / "docs" / "refresh.py"
    spec = importlib.util.spec_from_file_location("refresh", path)
    assert spec is not None
    assert spec.loader is not None
    refresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(refresh)
    text = "### Ratios\n\n| a |\n\n### Every measurement: ms\n\n| b |\n\nLeft out:\n\n- c\n\nMedians of 7.\n"
    assert refresh.shorten_results(text) == "#### Ratios\n\n| a |\n\nLeft out:\n\n- c\n\nMedians of 7."
