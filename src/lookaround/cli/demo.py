"""`lookaround demo`: three small networks learn to read handwritten digits, a fourth one to find them."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lookaround.training.command import RunCommandLine

HELP = "Train three small networks to read handwritten digits and one to find them: a table and pictures."
MAPPED_DIGITS = (3, 5, 8)
SHOWN_SCENES = 6
SCENE_SIDE = 288  # pixels at least, as drawn
LEAST_SCORE = 0.3


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
    from lookaround.studies import demo, demo_detection

    out: Path = arguments.out
    results, runs = [], {}
    for result, tested in demo.train_networks(out, arguments.epochs, arguments.seed):
        results.append(result)
        runs[result.recipe] = tested
    demo.write_results(out, results, arguments.seed)
    pictures = demo.draw_run_pictures(out, runs)
    pictures.append(draw_maps(runs[results[0].recipe], out / "attention_maps.png"))
    detection, tested = demo_detection.train_detector(out, arguments.epochs, arguments.seed)
    demo_detection.write_result(out, detection)
    pictures.append(draw_found(tested, out / "detections.png"))
    print(f"\n{demo.results_table(results)}\n\n{demo_detection.describe_result(detection)}")
    print(f"\n{out / 'results.md'}")
    print("\n".join(str(picture) for picture in pictures))
    return 0


def draw_maps(tested: "RunCommandLine", path: Path) -> Path:
    """Draw where each head of each layer looks, for the first test image of a few digits."""
    from lookaround.explorer.figures import draw_attention_maps

    images, labels = next(iter(tested.datamodule.test_dataloader()))
    chosen = {digit: int((labels == digit).nonzero()[0]) for digit in MAPPED_DIGITS if digit in labels}
    titles = [f"a test image of a {digit}" for digit in chosen]
    return draw_attention_maps(tested.model.network, images[list(chosen.values())], path, titles=titles)


def draw_found(tested: "RunCommandLine", path: Path) -> Path:
    """Draw what the detector found in the first test scenes, side by side."""
    from lookaround.data.images import open_image
    from lookaround.explorer.boxes import DrawnBox, draw_boxes, round_colours, tile_pictures
    from lookaround.training.files import replacing

    names = dict(zip(tested.datamodule.category_ids, tested.datamodule.class_names, strict=True))
    pictures = []
    for scene in tested.datamodule.annotations("test").images[:SHOWN_SCENES]:
        boxes = []
        for entry in tested.model.scores.detections:
            if entry["image_id"] == scene.image_id and entry["score"] >= LEAST_SCORE:
                x, y, width, height = entry["bbox"]
                text = f"{names[entry['category_id']]}  {entry['score']:.2f}"
                boxes.append(DrawnBox((x, y, x + width, y + height), text, entry["category_id"] - 1))
        pictures.append(draw_boxes(open_image(scene.path), boxes, SCENE_SIDE))
    sheet = round_colours(tile_pictures(pictures, columns=3))
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)
    return path
