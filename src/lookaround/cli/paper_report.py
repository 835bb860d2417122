"""`lookaround paper report`: what a folder of `lookaround paper run` says, as a page and pictures."""

import argparse
import sys
from pathlib import Path

HELP = "Make page and pictures of a folder of `lookaround paper run` anew. Trains nothing."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folder, and where to write."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the --out of `lookaround paper run`")
    text = "write there instead, results.json without the paths of this machine, as benchmarks/results/paper"
    parser.add_argument("--out", type=Path, metavar="DIR", help=text)


def run(arguments: argparse.Namespace) -> int:
    """Read the runs, or the results that were kept of them; write page, record and pictures.

    Raises:
        DataError: the folder holds no results.
        ArgumentError: the folder to write to is a file.
    """
    from lookaround.errors import ArgumentError, message
    from lookaround.studies.paper_ledger import results_of
    from lookaround.studies.paper_report import without_paths, write_report

    out = arguments.folder if arguments.out is None else arguments.out
    if out.exists() and not out.is_dir():
        raise ArgumentError(message("paper report", "--out must be a folder", out))
    results = results_of(arguments.folder)
    if arguments.out is not None:
        results = without_paths(results)
    for path in write_report(results, out, draw=results["experiments"]):
        print(path, file=sys.stderr)
    print(out / "results.md")
    return 0
