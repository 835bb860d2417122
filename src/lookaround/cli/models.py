"""`lookaround models`: every named network with parameters, FLOPs and input size."""

import argparse
import json
from typing import Any

HELP = "Every named network with parameters and FLOPs, as the paper counts them and as executed."
# Sides of the images that a row counts for, by task: of the paper, and of the names that end in _small.
IMAGE_SIZES = {"classification": (224, 32), "detection": (640, 128)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the pattern and `--json`."""
    parser.add_argument("pattern", nargs="?", default=None, help="only names that match, as in 'sasa_*50*'")
    parser.add_argument("--json", action="store_true", help="print JSON: FLOPs as plain numbers")


def run(arguments: argparse.Namespace) -> int:
    """Print the table.

    Raises:
        UnknownNameError: no name matches.
    """
    from lookaround.errors import UnknownNameError, closest, message
    from lookaround.models import list_models

    names = list_models(arguments.pattern)
    if not names:
        got = repr(arguments.pattern)
        hint = closest(str(arguments.pattern), list_models())
        raise UnknownNameError(message("models", "the pattern must match a name", got, hint=hint))
    rows = [describe_model(name) for name in names]
    print(json.dumps(rows, indent=2) if arguments.json else table(rows))
    return 0


def describe_model(name: str) -> dict[str, Any]:
    """One row: name, input size, parameters and both counts of FLOPs (two per multiply-add)."""
    import torch

    from lookaround.models import create_model
    from lookaround.models.costs import model_costs
    from lookaround.models.variants import task_of

    with torch.device("meta"):
        model = create_model(name)
    large, small = IMAGE_SIZES[task_of(name)]
    size = small if name.endswith("_small") else large
    costs = model_costs(model, size)
    return {
        "name": name,
        "image_size": size,
        "parameters": costs.parameters,
        "paper_flops": costs.paper_flops,
        "executed_flops": costs.executed_flops,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned text."""
    width = max(len(row["name"]) for row in rows)
    counts = f"{'parameters':>10}  {'GFLOPs (paper)':>14}  {'GFLOPs (executed)':>17}"
    head = f"{'name':<{width}}  {'input':>7}  {counts}"
    lines = [
        f"{row['name']:<{width}}  {row['image_size']:>3}x{row['image_size']:<3}  {row['parameters']:>10,}"
        f"  {row['paper_flops'] / 1e9:>14.2f}  {row['executed_flops'] / 1e9:>17.2f}"
        for row in rows
    ]
    return "\n".join([head, *lines])
