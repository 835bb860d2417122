"""Three small networks learn to read handwritten digits, two with attention and one with convolutions.

Each of them is an ordinary run of a packaged recipe, in a run folder of its own, so that whatever the table
says can be done again by `lookaround fit --config RECIPE`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lookaround.errors import ArgumentError, message
from lookaround.models.costs import model_costs
from lookaround.studies.markdown import markdown_table, words_first
from lookaround.training.command import RunCommandLine, run_command
from lookaround.training.environment import describe_environment
from lookaround.training.files import read_rows, replacing, write_json, write_text
from lookaround.training.task_kinds import draw_counts

KINDS = {
    "digits_full_attention": "attention throughout",
    "digits_convstem": "convolutional stem, attention",
    "digits_baseline": "convolution",
}
HEADER = ("network", "parameters", "MFLOPs (paper)", "MFLOPs (executed)", "test accuracy", "seconds")
Rows = Sequence[dict[str, float]]


@dataclass(frozen=True)
class Result:
    """One row of the table.

    Attributes:
        recipe: the packaged recipe that was run.
        network: its name in `lookaround.list_models()`.
        parameters: trainable numbers.
        paper_flops: of one image, as the paper counts; two for each multiply-add.
        executed_flops: of one image, as they are executed.
        test_images: how many images were held out.
        test_accuracy: share of them that was recognised.
        train_seconds: wall-clock time of the training, validation included.
        epochs: how often it saw each training image.
    """

    recipe: str
    network: str
    parameters: int
    paper_flops: int
    executed_flops: int
    test_images: int
    test_accuracy: float
    train_seconds: float
    epochs: int


def train_networks(
    out: Path, epochs: int | None, seed: int, say: Callable[[str], None] = print
) -> Iterator[tuple[Result, RunCommandLine]]:
    """Train and test one recipe after the other; yields each when it is done.

    Args:
        out: folder that holds a run folder for each recipe; earlier runs there are replaced.
        epochs: length of each training; None: the recipe's.
        seed: of weights, validation split, order and augmentation.
        say: what to do with a line for the user.

    Raises:
        ArgumentError: epochs or seed cannot be used, or `out` is a file.
    """
    check_arguments(out, epochs, seed)
    for number, (recipe, kind) in enumerate(KINDS.items(), start=1):
        say(f"\n[{number}/{len(KINDS)}] {kind}: lookaround fit --config {recipe}")
        options = ["--config", recipe, "--out", str(out)]
        options += ["--seed_everything", str(seed), "--data.seed", str(seed)]
        length = [] if epochs is None else ["--trainer.max_epochs", str(epochs)]
        run_command("fit", [*options, *length, "--overwrite"])
        tested = run_command("test", options)
        yield read_result(recipe, tested), tested


def check_arguments(out: Path, epochs: int | None, seed: int) -> None:
    """Refuse arguments with which nothing could be trained.

    Raises:
        ArgumentError: one of them cannot be used.
    """
    if epochs is not None and epochs < 1:
        raise ArgumentError(message("demo", "--epochs must be at least 1", epochs))
    if not 0 <= seed < 2**32:
        raise ArgumentError(message("demo", "--seed must be at least 0 and below 2**32", seed))
    if out.exists() and not out.is_dir():
        raise ArgumentError(message("demo", "--out must be a folder", f"the file {out}"))


def read_result(recipe: str, tested: RunCommandLine) -> Result:
    """Collect the row of a run that was trained and tested."""
    network = tested.model.network
    rows = read_rows(tested.folder.path / "metrics.csv")
    costs = model_costs(network, tested.datamodule.preprocessing.image_size)
    counts = tested.model.confusion_matrix
    return Result(
        recipe=recipe,
        network=network.config.name,
        parameters=costs.parameters,
        paper_flops=costs.paper_flops,
        executed_flops=costs.executed_flops,
        test_images=int(counts.sum()),
        test_accuracy=float(tested.trainer.callback_metrics["test_accuracy"]),
        train_seconds=math.fsum(row["epoch_seconds"] for row in rows),
        epochs=len(rows),
    )


def results_table(results: Sequence[Result]) -> str:
    """The results as a Markdown table, aligned so that it reads well in a terminal too."""
    return markdown_table(HEADER, [_cells(result) for result in results], words_first(len(HEADER)))


def _cells(result: Result) -> tuple[str, ...]:
    flops = (f"{result.paper_flops / 1e6:.2f}", f"{result.executed_flops / 1e6:.2f}")
    measured = (f"{result.test_accuracy:.2%}", f"{result.train_seconds:.0f}")
    return (result.network, f"{result.parameters:,}", *flops, *measured)


def write_results(out: Path, results: Sequence[Result], seed: int) -> None:
    """Write `results.md` and `results.json`: the table, and what it depends on."""
    environment = describe_environment() | {"seed": seed}
    rows = [asdict(result) for result in results]
    write_json(out / "results.json", {"environment": environment, "results": rows})
    conditions = describe_conditions(environment, results[0])
    write_text(out / "results.md", f"{results_table(results)}\n\n{conditions}\n")


def describe_conditions(environment: dict[str, Any], result: Result) -> str:
    """Say in a few words what was trained, how, where, and with which code."""
    cpu, gpus, torch = environment["cpu"], environment["gpus"], environment["versions"]["torch"]
    threads = f"{cpu['threads']} thread{'' if cpu['threads'] == 1 else 's'}"
    hardware = gpus[0]["name"] if gpus else f"{cpu['model']}, {threads}"
    commit = "unknown" if environment["commit"] is None else environment["commit"]
    return (
        f"scikit-learn's digits, 8x8 pixels, {result.test_images} held out; {result.epochs} epochs, seed "
        f"{environment['seed']}, float32; seconds are those of the training. FLOPs are of one image, two for "
        f"each multiply-add. Measured by `lookaround demo` with torch {torch} on {hardware}; commit {commit}."
    )


def draw_comparison(curves: Mapping[str, Rows], path: Path) -> None:
    """Draw validation loss and accuracy of several runs against the epoch.

    Args:
        curves: rows of `metrics.csv`, by what the run is called.
        path: the PNG to write.
    """
    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    loss, accuracy = figure.subplots(1, 2)
    for label, rows in curves.items():
        for axes, key in ((loss, "val_loss"), (accuracy, "val_accuracy")):
            points = [(row["epoch"], row[key]) for row in rows if key in row]
            axes.plot(*zip(*points, strict=True), label=label, marker="o", markersize=3)
    loss.set(title="Validation loss", ylabel="cross entropy (nats)", yscale="log")
    accuracy.set(title="Validation accuracy", ylabel="correct images")
    accuracy.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    for axes in (loss, accuracy):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        axes.grid(alpha=0.3)
        axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def draw_run_pictures(out: Path, runs: dict[str, RunCommandLine]) -> list[Path]:
    """Draw the learning curves of all runs, and which digits the first run takes for which."""
    curves = {KINDS[recipe]: read_rows(run.folder.path / "metrics.csv") for recipe, run in runs.items()}
    draw_comparison(curves, out / "learning_curves.png")
    recipe, run = next(iter(runs.items()))
    title = f"{KINDS[recipe]}: {run.model.network.config.name}\ntest"
    draw_counts(run.model, run.datamodule.class_names, out / "confusion_matrix.png", title)
    return [out / "learning_curves.png", out / "confusion_matrix.png"]
