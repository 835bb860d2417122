"""Planted bugs: each one must make the test-suite fail, or the suite does not test what it seems to.

Run with `make mutants`, or `python tests/mutants.py [NAME ...]`. Every mutant is one change of text in a
temporary copy of `src`, against which the fast tests run. Exit code 0: all were caught. 1: one survived.
2: the text to change was not found, the tests could not run, or the unchanged copy fails them.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OPS = "src/lookaround/ops"
REFERENCE, BLOCKED = f"{OPS}/backends/reference.py", f"{OPS}/backends/blocked.py"
BASE, CALL, PUBLIC = f"{OPS}/backends/base.py", f"{OPS}/call.py", f"{OPS}/local_attention.py"
DISPATCH, MODES = f"{OPS}/dispatch.py", f"{OPS}/modes.py"
OPS_TESTS = ("tests/ops/test_local_attention.py", "tests/ops")


@dataclass(frozen=True)
class Mutant:
    """One planted bug: in `file`, `old` (which is there once) becomes `new`."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...] = OPS_TESTS


MUTANTS = (
    Mutant("mask_off_by_one_below", REFERENCE, "(rows < call.height)", "(rows <= call.height)"),
    Mutant("mask_off_by_one_above", REFERENCE, "(rows >= 0)", "(rows > 0)"),
    Mutant("mask_off_by_one_right", REFERENCE, "(columns < call.width)", "(columns < call.width - 1)"),
    Mutant(
        "row_offsets_mirrored", REFERENCE, "- kernel_height // 2) * step_y", "- kernel_height // 2) * -step_y"
    ),
    Mutant("dilation_ignored", REFERENCE, "- kernel_width // 2) * step_x", "- kernel_width // 2)"),
    Mutant("border_zeros_ignored", REFERENCE, 'if call.border == "zeros":', "if False:"),
    Mutant("border_mask_ignored", REFERENCE, 'if call.border == "zeros":', "if True:"),
    Mutant("scale_dropped", REFERENCE, "(call.scale * logits)", "(logits)"),
    Mutant(
        "overflow_not_clamped",
        REFERENCE,
        "(call.scale * logits).clamp(-largest, largest)",
        "call.scale * logits",
    ),
    Mutant(
        "table_overflow_not_clamped", REFERENCE, "query, table).clamp(-largest, largest)", "query, table)"
    ),
    Mutant(
        "row_table_on_second_half",
        REFERENCE,
        "query[..., :half], inputs.row",
        "query[..., half:], inputs.row",
    ),
    Mutant(
        "row_logits_along_columns", REFERENCE, "row_embedding)[..., :, None]", "row_embedding)[..., None, :]"
    ),
    Mutant(
        "padding_attended_to",
        REFERENCE,
        "present = present & ~inputs.key_padding_mask",
        "present = present | inputs.key_padding_mask",
    ),
    Mutant("padded_values_leak", BASE, "value=inputs.value.masked_fill(hidden, 0.0)", "value=inputs.value"),
    Mutant("padded_queries_leak", BASE, "query=inputs.query.masked_fill(hidden, 0.0)", "query=inputs.query"),
    Mutant(
        "padded_outputs_kept", BASE, "return out if key_padding_mask is None else", "return out if True else"
    ),
    Mutant(
        "half_types_accumulate_in_half",
        CALL,
        "if self.dtype == torch.float64 else torch.float32",
        "if self.dtype == torch.float64 else self.dtype",
    ),
    Mutant("blocked_window_one_too_wide", BLOCKED, "(offsets >= kernel)", "(offsets > kernel)"),
    Mutant("blocked_window_one_too_narrow", BLOCKED, "(offsets < 0)", "(offsets <= 0)"),
    Mutant("blocked_scale_dropped", BLOCKED, "query if call.scale == 1.0 else query * call.scale", "query"),
    Mutant("blocked_border_mask_ignored", BLOCKED, 'if call.border == "zeros":', "if True:"),
    Mutant("blocked_border_zeros_ignored", BLOCKED, 'if call.border == "zeros":', "if False:"),
    Mutant(
        "blocked_padding_ignored",
        BLOCKED,
        "present = ~inputs.key_padding_mask",
        "present = torch.ones_like(inputs.key_padding_mask)",
    ),
    Mutant(
        "blocked_row_table_on_second_half", BLOCKED, "query[..., :half], table", "query[..., half:], table"
    ),
    Mutant(
        "blocked_halo_size_swapped",
        BLOCKED,
        "_add_halo(pieces, 1, layout.radius[0])",
        "_add_halo(pieces, 1, layout.radius[1])",
    ),
    Mutant("blocked_chunks_overlap", BLOCKED, "min(start + size, groups)", "min(start + size + 1, groups)"),
    Mutant(
        "blocked_clamp_dropped",
        BLOCKED,
        "_hide(logits.clamp(-largest, largest), outside",
        "_hide(logits, outside",
    ),
    Mutant(
        "blocked_softmax_gradient_incomplete",
        BLOCKED,
        "(to_weights - (weights * to_weights).sum(-1, keepdim=True))",
        "to_weights",
    ),
    Mutant("blocked_row_gradient_a_mean", BLOCKED, ".sum(-1).view_as(rows)", ".mean(-1).view_as(rows)"),
    Mutant(
        "blocked_key_gradient_from_weights",
        BLOCKED,
        "to_logits.transpose(-1, -2) @ query",
        "weights.transpose(-1, -2) @ query",
    ),
    Mutant(
        "blocked_keeps_all_weights", BLOCKED, "recompute = call.requires_grad and", "recompute = False and"
    ),
    Mutant(
        "even_windows_accepted",
        CALL,
        "if pair[0] % 2 == 0 or pair[1] % 2 == 0:",
        "if pair[0] % 2 == 0 and pair[1] % 2 == 0:",
    ),
    Mutant(
        "kernel_width_checked_as_height",
        CALL,
        "inputs.column_embedding, query, window[1]",
        "inputs.column_embedding, query, window[0]",
    ),
    Mutant(
        "mixed_dtypes_accepted",
        CALL,
        "if tensor is not padding and tensor.dtype != query.dtype:",
        "if False:",
    ),
    Mutant(
        "weights_of_padded_queries_kept",
        PUBLIC,
        "    if inputs.key_padding_mask is None:\n        return weights",
        "    if True:\n        return weights",
    ),
    Mutant(
        "autocast_ignored",
        MODES,
        "return torch.amp.is_autocast_available(device_type) and",
        "return False and",
    ),
    Mutant("refusing_backend_runs_anyway", DISPATCH, "            if reasons:\n", "            if False:\n"),
    Mutant(
        "auto_takes_a_refusing_backend",
        DISPATCH,
        'name == "auto" and not backend.reasons_against(call)',
        'name == "auto"',
    ),
)


class CannotTestError(Exception):
    """A mutant says nothing, for it could not be planted or the tests could not run."""


def plant(mutant: Mutant, copy: Path) -> None:
    """Change the text in the copy of the sources."""
    path = copy / mutant.file
    source = path.read_text()
    if source.count(mutant.old) != 1:
        found = source.count(mutant.old)
        raise CannotTestError(f"{mutant.name}: {mutant.old!r} is {found} times in {mutant.file}, not once")
    path.write_text(source.replace(mutant.old, mutant.new))


def check_that_copies_are_imported(copy: Path) -> None:
    """Make sure that the tests import the copy, and not what is installed."""
    environment = os.environ | {"PYTHONPATH": str(copy / "src")}
    command = [sys.executable, "-c", "import lookaround; print(lookaround.__path__[0])"]
    found = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    if not found.stdout.startswith(str(copy)):
        raise CannotTestError(f"the copy is not what is imported: {found.stdout}{found.stderr}")


def run_tests(copy: Path, tests: tuple[str, ...]) -> tuple[bool, str]:
    """Run the fast tests against a copy; say whether they pass, and what the first failure was."""
    environment = os.environ | {"PYTHONPATH": str(copy / "src"), "OMP_NUM_THREADS": "1"}
    options = [
        "-x",
        "-q",
        "--tb=no",
        "-m",
        "not slow",
        "-p",
        "no:cacheprovider",
        "--hypothesis-profile=mutants",
    ]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise CannotTestError(
            f"pytest ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    failures = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    return done.returncode == 0, failures[0].removeprefix("FAILED ").split(" - ")[0] if failures else ""


def judge(mutant: Mutant | None) -> tuple[str, str, float]:
    """Give the verdict on a mutant (None: the sources as they are), the test that decided, the seconds."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder).resolve()
        shutil.copytree(ROOT / "csrc", copy / "csrc")
        shutil.copytree(
            ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
        try:
            if mutant is None:
                check_that_copies_are_imported(copy)
            else:
                plant(mutant, copy)
            passed, failure = run_tests(copy, OPS_TESTS if mutant is None else mutant.tests)
        except CannotTestError as error:
            return "ERROR", str(error), time.perf_counter() - start
    return "SURVIVED" if passed else "caught", failure, time.perf_counter() - start


def show(name: str, verdict: tuple[str, str, float]) -> None:
    """Print one row of the table."""
    what, detail, seconds = verdict
    print(f"{name:<38} {what:<9} {seconds:5.0f} s  {detail}", flush=True)


def main() -> int:
    """Judge the mutants that were named, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutants to run (default: all)")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1), help="mutants at a time")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(m.name for m in MUTANTS)}")
    chosen = [mutant for mutant in MUTANTS if not arguments.names or mutant.name in arguments.names]
    unchanged = judge(None)
    show("(no change)", ("passes" if unchanged[0] == "SURVIVED" else "FAILS", *unchanged[1:]))
    if unchanged[0] != "SURVIVED":
        return 2
    with ThreadPoolExecutor(arguments.jobs) as pool:
        verdicts = []
        for mutant, verdict in zip(chosen, pool.map(judge, chosen), strict=True):
            show(mutant.name, verdict)
            verdicts.append(verdict[0])
    print(f"{verdicts.count('caught')} of {len(chosen)} planted bugs caught.")
    return 2 if "ERROR" in verdicts else int("SURVIVED" in verdicts)


if __name__ == "__main__":
    sys.exit(main())
