"""`lookaround paper`: the paper, table by table."""

import argparse
import importlib
import importlib.util

HELP = "The paper, table by table: what its networks cost, and what they learn on the data at hand."
# name: (what it does in a line, the module that does it: HELP, add_arguments and run, as any command)
SUBCOMMANDS = {
    "costs": ("every printed row with its parameters and FLOPs, beside ours", "lookaround.cli.paper_costs"),
    "run": ("train every row of the tables named, with several seeds", "lookaround.cli.paper_run"),
    "report": ("page and pictures of finished runs, made anew", "lookaround.cli.paper_report"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands, and what each can be told."""
    parsers = parser.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")
    for name, (text, place) in SUBCOMMANDS.items():
        if importlib.util.find_spec(place) is None:
            continue
        module = importlib.import_module(place)
        module.add_arguments(parsers.add_parser(name, help=text, description=module.HELP))


def run(arguments: argparse.Namespace) -> int:
    """Hand over to the sub-command."""
    module = importlib.import_module(SUBCOMMANDS[arguments.subcommand][1])
    return int(module.run(arguments))
