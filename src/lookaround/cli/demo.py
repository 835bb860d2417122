"""`lookaround demo`: three small networks learn to read handwritten digits, side by side."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lookaround.training.command import RunCommandLine

HELP = "Train three small networks on handwritten digits and compare them: a table and pictures."
MAPPED_DIGITS = (3, 5, 8)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where to write, and how long to train."""
    folder = Path("runs/demo")
    parser.add_argument("--out", type=Path, default=folder, metavar="DIR", help="folder (runs/demo)")
    parser.add_argument("--epochs", type=int, metavar="N", help="length of each training (the recipe's)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of weights, split and order (0)")


def run(arguments: argparse.Namespace) -> int:
    """Train, print the table, draw the pictures.

    Raises:
        ArgumentError: an argument cannot be used.
    """
    from lookaround.studies import demo

    out: Path = arguments.out
    results, runs = [], {}
    for result, tested in demo.train_networks(out, arguments.epochs, arguments.seed):
        results.append(result)
        runs[result.recipe] = tested
    demo.write_results(out, results, arguments.seed)
    pictures = demo.draw_run_pictures(out, runs)
    pictures.append(draw_maps(runs[results[0].recipe], out / "attention_maps.png"))
    print(f"\n{demo.results_table(results)}\n\n{out / 'results.md'}")
    print("\n".join(str(picture) for picture in pictures))
    return 0


def draw_maps(tested: "RunCommandLine", path: Path) -> Path:
    """Draw where each head of each layer looks, for the first test image of a few digits."""
    from lookaround.explorer.figures import draw_attention_maps

    images, labels = next(iter(tested.datamodule.test_dataloader()))
    chosen = {digit: int((labels == digit).nonzero()[0]) for digit in MAPPED_DIGITS if digit in labels}
    titles = [f"a test image of a {digit}" for digit in chosen]
    return draw_attention_maps(tested.model.network, images[list(chosen.values())], path, titles=titles)
