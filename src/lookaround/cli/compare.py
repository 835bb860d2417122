"""`lookaround compare`: finished runs in one table, of classifiers or of detectors."""

import argparse
from pathlib import Path

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

    name = read_record(arguments.runs[0]).name
    if name in VARIANTS and task_of(name) == DETECTION:
        found = [detection_runs.read_detection_run(folder) for folder in arguments.runs]
        if arguments.json is not None:
            detection_runs.write_forms(found, arguments.json, arguments.note)
        print(detection_runs.forms_table(found, arguments.note))
        return 0
    rows = [runs.read_run(folder) for folder in arguments.runs]
    if arguments.json is not None:
        runs.write_runs(rows, arguments.json, arguments.note)
    print(runs.runs_table(rows, arguments.note))
    return 0
