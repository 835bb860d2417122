"""`lookaround paper costs`: parameters and FLOPs of every network of the paper, printed and counted."""

import argparse
import sys
from pathlib import Path

HELP = "Every printed row with its parameters and FLOPs, beside ours; differences explained. Trains nothing."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the tables and the files."""
    parser.add_argument(
        "tables", nargs="*", metavar="TABLE", help="table1 to table7, figure5 (all of them if none is named)"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too, a .md file")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the plain numbers there, a .json file"
    )


def run(arguments: argparse.Namespace) -> int:
    """Count, print the table, write what was asked for.

    Raises:
        UnknownNameError: the paper has no such table.
        ArgumentError: a file cannot be written there.
    """
    from lookaround.cli.bench import check_file, progress
    from lookaround.studies.paper_cost_tables import costs_table, write_costs
    from lookaround.studies.paper_costs import choose_tables, count_rows, printed_rows

    check_file("paper costs", "--markdown", arguments.markdown, ".md")
    check_file("paper costs", "--json", arguments.json, ".json")
    rows = printed_rows(choose_tables(arguments.tables))
    with progress(sys.stderr.isatty()) as tick:
        counted = count_rows(rows, tick)
    print(costs_table(counted))
    write_costs(counted, arguments.json, arguments.markdown)
    return 0
