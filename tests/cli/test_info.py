import json

import torch

from lookaround.cli import info
from lookaround.cli.main import main


def test_the_text_names_versions_hardware_and_backends(capsys):
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    assert f"torch        {torch.__version__.split('+')[0]}" in printed
    for word in ("python", "cpu", "threads", "instructions", "gpu", "reference", "blocked", "chosen"):
        assert word in printed


def test_json_gives_the_reasons(capsys):
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["backends"]["cpu"]["reference"] == []
    assert facts["typical_call"] == info.TYPICAL
    assert facts["cpu"]["threads"] == torch.get_num_threads()


def test_reasons_are_shown():
    facts = {
        "versions": {"lookaround": "0.1.0", "timm": None},
        "commit": "abc",
        "python": "3.11",
        "platform": "here",
        "cpu": {
            "model": "m",
            "architecture": "a",
            "cores": 2,
            "threads": 1,
            "memory_bytes": None,
            "instruction_sets": [],
            "torch_instruction_set": "DEFAULT",
        },
        "gpus": [{"name": "G", "memory_bytes": 2**30, "capability": "9.0"}],
        "typical_call": "a call",
        "backends": {"cpu": {"native": ["no compiler", "no luck"], "reference": []}},
    }
    printed = info.describe(facts)
    assert "lookaround   0.1.0  (abc)" in printed
    assert "timm         absent" in printed
    assert "gpu          G, 1.0 GiB, compute capability 9.0" in printed
    assert "cpu   native     no: no compiler; no luck" in printed
    assert "cpu   reference  chosen" in printed
