"""The last part of the demo: a detector with attention learns to find digits in easy scenes.

Its backbone begins with weights of our own, float16, from a run of `scenes_attention_retinanet`; pyramid and
heads begin at random.
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from lookaround.models.costs import model_costs
from lookaround.training.command import RunCommandLine, run_command
from lookaround.training.files import read_rows, write_json, write_text

RECIPE = "scenes_attention_retinanet"
# Few, large digits before little clutter: what can be learnt in about a minute.
EASY = {
    "images": 1000,
    "image_size": 96,
    "smallest": 36,
    "largest": 60,
    "most_objects": 3,
    "clutter": 0,
}
EPOCHS = 6
BACKBONE = Path(__file__).with_name("scenes_backbone.safetensors")


@dataclass(frozen=True)
class DetectionResult:
    """What the detector came to.

    Attributes:
        recipe: the packaged recipe that was run, on scenes easier than its own.
        network: its name in `lookaround.list_models()`.
        parameters: trainable numbers.
        test_images: how many scenes were held out.
        test_map: COCO's mean average precision of them.
        test_map50: at an overlap of 0.5.
        train_seconds: wall-clock time of the training, validation included.
        epochs: how often it saw each training image.
    """

    recipe: str
    network: str
    parameters: int
    test_images: int
    test_map: float
    test_map50: float
    train_seconds: float
    epochs: int


def train_detector(
    out: Path, epochs: int | None, seed: int, say: Callable[[str], None] = print
) -> tuple[DetectionResult, RunCommandLine]:
    """Write scenes, train a detector on them, test it.

    Args:
        out: folder that holds the scenes and the run folder; an earlier run there is replaced.
        epochs: length of the training; None: `EPOCHS`.
        seed: of weights and order.
        say: what to do with a line for the user.
    """
    length = EPOCHS if epochs is None else epochs
    options = ["--config", RECIPE, "--out", str(out), "--data.root", str(out / "easy_scenes")]
    for name, value in EASY.items():
        options += [f"--data.scenes.{name}", str(value)]
    options += ["--model.backbone", str(BACKBONE), "--model.optimizer.warmup_epochs", "0.5"]
    options += ["--seed_everything", str(seed), "--data.seed", str(seed)]
    options += ["--trainer.max_epochs", str(length)]
    say(
        f"\nfinding digits: lookaround fit --config {RECIPE}, {length} epochs of {EASY['images']} easy scenes"
    )
    run_command("fit", [*options, "--overwrite"])
    tested = run_command("test", options)
    return read_result(tested), tested


def read_result(tested: RunCommandLine) -> DetectionResult:
    """Collect what a run that was trained and tested came to."""
    rows = read_rows(tested.folder.path / "metrics.csv")
    network, scores = tested.model.network, tested.model.scores
    return DetectionResult(
        recipe=RECIPE,
        network=network.config.name,
        parameters=model_costs(network, tested.datamodule.preprocessing.image_size).parameters,
        test_images=scores.images,
        test_map=scores.figures["map"],
        test_map50=scores.figures["map50"],
        train_seconds=math.fsum(row["epoch_seconds"] for row in rows),
        epochs=len(rows),
    )


def write_result(out: Path, result: DetectionResult) -> None:
    """Add the sentence to `results.md`, and the figures to `results.json`."""
    document = json.loads((out / "results.json").read_text(encoding="utf-8"))
    write_json(out / "results.json", document | {"detection": asdict(result)})
    text = (out / "results.md").read_text(encoding="utf-8").rstrip()
    write_text(out / "results.md", f"{text}\n\n{describe_result(result)}\n")


def describe_result(result: DetectionResult) -> str:
    """Say in a sentence what was found."""
    return (
        f"{result.network} ({result.parameters:,} parameters) finds digits in {result.test_images} held-out "
        f"easy scenes with mAP {result.test_map:.3f}, AP50 {result.test_map50:.3f}, after {result.epochs} "
        "epochs that began with a trained backbone, in "
        f"{result.train_seconds:.0f} seconds."
    )
