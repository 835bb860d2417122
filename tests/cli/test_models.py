import json

from lookaround.cli.main import main
from lookaround.models import list_models


def test_the_table_has_every_name(capsys):
    assert main(["models", "resnet*_small"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list_models("resnet*_small")
    assert "32x32" in lines[1]
    assert "GFLOPs (paper)" in lines[0]
    assert len({len(line) for line in lines}) == 1


def test_json_has_plain_numbers(capsys):
    assert main(["models", "sasa_resnet50_convstem", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["name"] == "sasa_resnet50_convstem"
    assert row["parameters"] == 18_015_504
    assert row["image_size"] == 224
    assert abs(row["paper_flops"] - 7.0e9) < 0.15e9
    assert row["executed_flops"] < row["paper_flops"]


def test_a_pattern_without_a_match_lists_the_names(capsys):
    assert main(["models", "resnet51"]) == 2
    error = capsys.readouterr().err
    assert "the pattern must match a name; got 'resnet51'" in error
    assert "did you mean 'resnet" in error
