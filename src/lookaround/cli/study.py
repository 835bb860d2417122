"""`lookaround study`: many trainings that make one table."""

import argparse
from pathlib import Path

HELP = "Train many networks and put them into one table. `scenes`: attention in a detector's parts."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the studies, and what each can be told."""
    studies = parser.add_subparsers(dest="study", required=True, metavar="STUDY")
    text = "backbone and heads of a detector, by convolution and by attention, on scenes"
    scenes = studies.add_parser("scenes", help=text, description=f"Compare {text}. Can be continued.")
    scenes.add_argument(
        "--out", type=Path, default=Path("runs/scenes"), metavar="DIR", help="run folders (runs/scenes)"
    )
    scenes.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="S", help="seeds (0 1 2)")
    scenes.add_argument(
        "--json", type=Path, metavar="OUT", help="write the runs there too, and the table beside it as .md"
    )
    scenes.add_argument("--epochs", type=int, metavar="N", help="length of each training (the recipes')")
    scenes.add_argument("--note", metavar="TEXT", help="what a reader must know about these runs")


def run(arguments: argparse.Namespace) -> int:
    """Train and test what is not done yet, print the table.

    Raises:
        ArgumentError: an argument cannot be used.
    """
    from lookaround.studies.detection_runs import forms_table
    from lookaround.studies.run_tables import write_runs
    from lookaround.studies.scenes import run_scenes

    options = [] if arguments.epochs is None else ["--trainer.max_epochs", str(arguments.epochs)]
    runs = []
    for finished in run_scenes(arguments.out, arguments.seeds, options):
        runs.append(finished)
        if arguments.json is not None:
            write_runs(runs, forms_table(runs, arguments.note), arguments.json, arguments.note)
    print(f"\n{forms_table(runs, arguments.note)}")
    return 0
