"""`lookaround compare`: finished runs in one table, of classifiers or of detectors."""

import argparse
from pathlib import Path
from typing import Any

HELP = "Put runs that were trained and tested into one table."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the run folders, and where to write."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run folder, as runs/NAME")
    parser.add_argument(
        "--json", type=Path, metavar="OUT", help="write the rows there too, and the table beside it as .md"
    )
    parser.add_argument("--note", metavar="TEXT", help="what a reader must know about these runs")


def run(arguments: argparse.Namespace) -> int:
    """Read the runs, print the table.

    Raises:
        DataError: a folder is no run folder, or its run was not tested.
    """
    from lookaround.models.checkpoint import read_record
    from lookaround.models.variants import DETECTION, VARIANTS, task_of
    from lookaround.studies import detection_runs, runs
    from lookaround.studies.run_tables import write_runs

    name = read_record(arguments.runs[0]).name
    if name in VARIANTS and task_of(name) == DETECTION:
        found: list[Any] = [detection_runs.read_detection_run(folder) for folder in arguments.runs]
        table = detection_runs.forms_table(found, arguments.note)
    else:
        found = [runs.read_run(folder) for folder in arguments.runs]
        table = runs.runs_table(found, arguments.note)
    if arguments.json is not None:
        write_runs(found, table, arguments.json, arguments.note)
    print(table)
    return 0
