"""Convolution and attention in the backbone and in the heads of a detector, on scenes: Table 2 in small."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lookaround.errors import ArgumentError, message
from lookaround.studies.detection_runs import DetectionRun, read_detection_run
from lookaround.training.command import run_command

# Same depth, width, data and schedule; see the recipes.
RECIPES = (
    "scenes_convolution_retinanet",
    "scenes_attention_heads_retinanet",
    "scenes_attention_backbone_retinanet",
    "scenes_attention_retinanet",
)


def run_scenes(
    out: Path, seeds: Sequence[int], options: Sequence[str] = (), say: Callable[[str], None] = print
) -> Iterator[DetectionRun]:
    """Train and test every form with every seed; yields each run when it is done.

    Runs that were tested already are taken as they are, and those that were stopped go on, so that a study
    can be continued. All forms of a seed come before the next seed.

    Args:
        out: folder that holds a run folder for each form and seed.
        seeds: of weights and order; the scenes are the same for all.
        options: further options of `lookaround fit` and `test`, for all of them.
        say: what to do with a line for the user.

    Raises:
        ArgumentError: there is no seed, or one is out of range.
    """
    if not seeds or not all(0 <= seed < 2**32 for seed in seeds):
        must = "--seeds must be at least one number from 0 to 2**32 - 1"
        raise ArgumentError(message("study", must, list(seeds)))
    number = 0
    for seed in seeds:
        for recipe in RECIPES:
            number += 1
            say(f"\n[{number}/{len(seeds) * len(RECIPES)}] {recipe}, seed {seed}")
            yield run_form(out, recipe, seed, options)


def run_form(out: Path, recipe: str, seed: int, options: Sequence[str] = ()) -> DetectionRun:
    """Train and test one form with one seed, unless that is done."""
    name = f"{recipe}-seed{seed}"
    folder = out / name
    words = ["--config", recipe, "--out", str(out), "--name", name, *options]
    words += ["--seed_everything", str(seed), "--data.seed", str(seed)]
    if not (folder / "weights.safetensors").is_file():
        begun = (folder / "checkpoints" / "last.ckpt").is_file()
        run_command("fit", [*words, "--resume" if begun else "--overwrite"])
    if not (folder / "test.json").is_file():
        run_command("test", words)
    return read_detection_run(folder)
