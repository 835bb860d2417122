import json

import pytest

from lookaround.cli.main import main

SMALL = ["--image-size", "48", "--object-sizes", "12", "24", "--objects", "2", "--clutter", "1"]


def test_scenes_are_written_and_counted(tmp_path, capsys):
    out = tmp_path / "scenes"
    assert main(["data", "scenes", "--out", str(out), "--images", "7", "--seed", "4", *SMALL]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{out}: 5 train, 1 val, 1 test\n"
    assert captured.err == ""
    document = json.loads((out / "annotations" / "instances_train.json").read_text())
    assert len(document["images"]) == len(list((out / "train").glob("*.png"))) == 5
    assert document["images"][0]["width"] == 48
    assert "objects of 12 to 24; seed 4" in document["info"]["description"]


def test_a_folder_that_holds_something_is_refused(tmp_path, capsys):
    (tmp_path / "mine.txt").touch()
    assert main(["data", "scenes", "--out", str(tmp_path), "--images", "7"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "lookaround data: error: scenes: --out must be a folder that does not exist or is"
    )
    assert "hint: name another folder, or remove this one." in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "the following arguments are required: KIND"),
        (["photos"], "invalid choice: 'photos'"),
        (["scenes", "--images", "7"], "the following arguments are required: --out"),
        (["scenes", "--out", "x", "--images", "2"], "--images must be at least 3"),
        (["scenes", "--out", "x", "--images", "many"], "invalid int value: 'many'"),
        (["scenes", "--out", "x", "--images", "9", "--seed", "-1"], "--seed must be from 0 to"),
        (["scenes", "--out", "x", "--images", "9", "--source", "cats"], "invalid choice: 'cats'"),
        (["scenes", "--out", "x", "--images", "9", "--image-size", "32"], "largest object <= image size"),
        (["scenes", "--out", "x", "--images", "9", "--objects", "0"], "at least 1 object"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["data", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_help_tells_the_defaults(capsys):
    assert main(["data", "scenes", "--help"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("usage: lookaround data scenes")
    for words in ("70 % train", "(digits)", "(128)", "(16 64)"):
        assert words in printed
