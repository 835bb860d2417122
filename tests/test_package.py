"""The package as a whole: exported names, cost of importing it, lengths of files, words that must not be."""

import ast
import importlib
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import lookaround

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "lookaround"

LAYERS = ["LocalAttention2d", "AttentionStem", "ConvStem"]
# Changing a public name is a decision: make it here as well, and in CHANGELOG.md.
EXPORTED = {
    "lookaround": ["create_model", "list_models", "list_pretrained", "local_attention", *LAYERS],
    "lookaround.ops": ["local_attention", "attention_weights", "explain_backends"],
    "lookaround.nn": [*LAYERS, "replace_convolutions", "ConversionReport", "count_flops"],
    "lookaround.models": ["create_model", "list_models", "list_pretrained", "ResNet"],
}
ROOMS = ["lookaround", *(f"lookaround.{path.parent.name}" for path in sorted(SOURCE.glob("*/__init__.py")))]

HEAVY = {"torchvision", "timm", "lightning", "pytorch_lightning", "matplotlib", "sklearn", "PIL", "rich"}
IMPORT_LIMIT_SECONDS = 0.3
PROBE = """
import json, sys, time
import torch
before = set(sys.modules)
start = time.process_time()
import lookaround
seconds = time.process_time() - start
print(json.dumps({"seconds": seconds, "modules": sorted(set(sys.modules) - before)}))
"""


def probe_import() -> dict[str, Any]:
    """Import lookaround after torch in a fresh interpreter."""
    command = [sys.executable, "-c", PROBE]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", EXPORTED)
def test_exported_names_are_the_expected_ones(name: str) -> None:
    exported = importlib.import_module(name).__all__
    assert [public for public in EXPORTED[name] if public not in exported] == []


def test_top_level_exports_nothing_else() -> None:
    assert set(lookaround.__all__) - set(EXPORTED["lookaround"]) <= {"__version__", "errors"}


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_and_every_exported_name_is_described(room: str) -> None:
    module = importlib.import_module(room)
    exported = list(getattr(module, "__all__", []))
    values = {name: getattr(module, name) for name in exported}
    silent = [name for name, value in values.items() if callable(value) and not value.__doc__]
    assert module.__doc__
    assert len(exported) == len(set(exported))
    assert silent == []


@pytest.mark.parametrize("room", ROOMS)
def test_no_public_name_is_forgotten(room: str) -> None:
    """Whatever an `__init__` brings in is exported, a module of the room, or private."""
    module = importlib.import_module(room)
    values = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    public = {name for name, value in values.items() if not isinstance(value, ModuleType)}
    assert public <= set(getattr(module, "__all__", []))


def test_import_brings_in_nothing_heavy() -> None:
    found = {name.partition(".")[0] for name in probe_import()["modules"]}
    assert "lookaround" in found
    assert found & HEAVY == set()


@pytest.mark.slow
def test_import_costs_little_more_than_torch() -> None:
    """In CPU seconds, which a busy machine stretches less than the clock; median of five, two more tries."""
    medians: list[float] = []
    while len(medians) < 3 and (not medians or medians[-1] > IMPORT_LIMIT_SECONDS):
        medians.append(statistics.median(probe_import()["seconds"] for _ in range(5)))
    assert min(medians) <= IMPORT_LIMIT_SECONDS, medians


def source_files() -> list[Path]:
    kernels = [path for path in (ROOT / "csrc").rglob("*") if path.suffix in {".cpp", ".h", ".inl"}]
    return sorted([*SOURCE.rglob("*.py"), *kernels])


def line_limit(path: Path) -> int:
    return 500 if path.suffix != ".py" or path.stem.endswith("_kernels") else 400


def test_files_stay_short() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in source_files()}
    assert {str(path): lines for path, lines in lengths.items() if lines > line_limit(path)} == {}


def blind_excepts(path: Path) -> Iterator[str]:
    """Places that catch everything and do not raise it again."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            caught = "" if node.type is None else ast.unparse(node.type)
            goes_on = ast.unparse(node.body[-1]) != "raise"
            if caught in {"", "Exception", "BaseException"} and goes_on:
                yield f"{path.relative_to(ROOT)}:{node.lineno}"


# A worker keeps the whole traceback of a run that failed, whatever it was, and goes on with the next.
WORKERS = SOURCE / "studies" / "paper_workers.py"


def test_no_error_is_caught_blindly() -> None:
    others = [path for path in SOURCE.rglob("*.py") if path != WORKERS]
    assert [place for path in others for place in blind_excepts(path)] == []
    assert len(list(blind_excepts(WORKERS))) == 1


def test_no_module_is_a_drawer_for_everything() -> None:
    drawers = {"utils", "util", "helpers", "misc", "common"}
    assert [str(path) for path in SOURCE.rglob("*") if path.stem in drawers] == []


# Written with brackets, so that this file does not find itself.
FORBIDDEN = {
    "a left-over": r"\b(T[O]DO|F[I]XME|X[X]X|H[A]CK)\b",
    "a path of one machine": r"(?<![\w.])/(w[o]rk|r[o]ot|h[o]me)/",
    "praise": r"(?i)\b(bl[a]zing|state[ -]of[ -]the[ -]art|c[u]tting[ -]edge|s[e]amless|rev[o]lutionary)",
    "an emoji": "[\U0001f300-\U0001faff\u2600-\u27bf]",
}
WRITTEN = {".py", ".md", ".yaml", ".yml", ".toml", ".cff", ".cpp", ".h"}


def written_files() -> list[Path]:
    folders = [ROOT / name for name in ("src", "tests", "docs", "csrc", "benchmarks")]
    inside = [path for folder in folders for path in folder.rglob("*")]
    return sorted(path for path in [*inside, *ROOT.glob("*.*")] if path.suffix in WRITTEN)


def test_no_forbidden_words() -> None:
    texts = {str(path.relative_to(ROOT)): path.read_text() for path in written_files()}
    found = [
        f"{path} has {what}: {match.group()!r}"
        for path, text in texts.items()
        for what, words in FORBIDDEN.items()
        if (match := re.search(words, text))
    ]
    assert found == []
