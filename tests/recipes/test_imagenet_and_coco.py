"""The recipes for data that few have: two steps of each, on a made-up folder in the right format.

What a recipe says of network, optimizer, augmentation and schedule is as it is; images are few and small.
"""

import json
import math
from pathlib import Path

import pytest
import yaml
from PIL import Image

from lookaround.training.command import run_command
from lookaround.training.files import read_rows
from lookaround.training.recipes import FOLDER, list_recipes

BACKBONES = ("resnet50", "sasa_resnet50", "sasa_resnet50_convstem")
STEPS = 2
SMALL = {
    "--data.image_size": "64",
    "--data.batch_size": "2",
    "--data.num_workers": "0",
    "--trainer.max_epochs": "1",
    "--trainer.limit_train_batches": str(STEPS),
    "--trainer.accumulate_grad_batches": "1",
    "--trainer.enable_checkpointing": "false",  # a third of a gigabyte for each
    "--trainer.enable_model_summary": "false",
}


def draw(file: Path, mode: str = "RGB", size: tuple[int, int] = (80, 60)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise(size, 64).convert(mode).save(file, format="JPEG")


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders named by synsets; as in ImageNet some pictures are grey, one is in CMYK."""
    root = tmp_path_factory.mktemp("imagenet")
    for synset in ("n01440764", "n01443537"):
        for index, mode in enumerate(("RGB", "L", "CMYK")):
            draw(root / "train" / synset / f"{synset}_{index}.JPEG", mode)
        draw(root / "val" / synset / "ILSVRC2012_val_00000001.JPEG")
    return root


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As instances_train2017.json has it: gaps in the ids, masks, a crowd, a picture without objects."""
    root = tmp_path_factory.mktemp("coco")
    write_coco_part(root, "train2017", 4)
    write_coco_part(root, "val2017", 2)
    return root


def write_coco_part(root: Path, part: str, number: int) -> None:
    names = [f"{index:012}.jpg" for index in range(number)]
    for index, name in enumerate(names):
        draw(root / part / name, "RGB" if index else "L")
    images = [
        {"id": 139 + index, "file_name": name, "width": 80, "height": 60, "license": 1}
        for index, name in enumerate(names)
    ]
    box = {"bbox": [8.5, 6.25, 40.0, 40.0], "area": 1600.0, "iscrowd": 0}
    outline = {"segmentation": [[8.5, 6.25, 48.5, 6.25, 48.5, 46.25]]}
    objects = [
        box | outline | {"id": 9 + index, "image_id": image["id"], "category_id": (1, 90)[index % 2]}
        for index, image in enumerate(images[1:])
    ]
    crowd = {"segmentation": {"counts": [0, 4800], "size": [60, 80]}, "iscrowd": 1}
    objects.append(box | crowd | {"id": 900100000001, "image_id": 140, "category_id": 1})
    categories = [
        {"supercategory": "person", "id": 1, "name": "person"},
        {"supercategory": "indoor", "id": 90, "name": "toothbrush"},
    ]
    document = {"info": {}, "licenses": [], "images": images, "annotations": objects}
    file = root / "annotations" / f"instances_{part}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(document | {"categories": categories}))


def train(recipe: str, root: Path, out: Path, *more: str) -> Path:
    """Do two steps and a validation by a recipe; return the run folder."""
    options = [word for pair in SMALL.items() for word in pair]
    words = ["--config", recipe, "--data.root", str(root), "--out", str(out), *options, *more]
    command = run_command("fit", words)
    assert command.trainer.global_step == STEPS
    assert command.folder.path == out / recipe
    return command.folder.path


def settings_of(folder: Path) -> dict:
    return yaml.safe_load((folder / "config.yaml").read_text())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the warm-up")  # two steps are none
@pytest.mark.parametrize("backbone", BACKBONES)
def test_two_steps_on_imagenet_and_from_there_on_coco(
    backbone: str, imagenet: Path, coco: Path, tmp_path: Path
) -> None:
    """As the recipes say: the detector begins with the weights of the classifier's run folder."""
    classifier = train(f"imagenet_{backbone}", imagenet, tmp_path)
    (row,) = read_rows(classifier / "metrics.csv")
    assert math.isfinite(row["train_loss"])
    assert math.isfinite(row["val_loss"])
    assert 0 <= row["val_accuracy"] <= 1

    detector = train(
        f"coco_{backbone.replace('resnet', 'retinanet_resnet')}",
        coco,
        tmp_path,
        "--model.backbone",
        str(classifier),
    )
    (row,) = read_rows(detector / "metrics.csv")
    assert math.isfinite(row["train_loss"])
    assert math.isfinite(row["val_loss"])
    assert 0 <= row["val_map"] <= 1

    for folder in (classifier, detector):
        assert (folder / "weights.safetensors").is_file()
        recipe = yaml.safe_load((FOLDER / f"{folder.name}.yaml").read_text())
        told = settings_of(folder)
        assert told["model"]["model"] == recipe["model"]["model"]
        for name, value in recipe["model"]["optimizer"].items():
            assert told["model"]["optimizer"][name] == value
        assert told["data"]["augment"] == "paper"


def test_no_recipe_for_imagenet_or_coco_is_left_out() -> None:
    there = {name for name in list_recipes() if name.startswith(("imagenet_", "coco_"))}
    ours = {f"imagenet_{name}" for name in BACKBONES}
    assert there == ours | {f"coco_{name.replace('resnet', 'retinanet_resnet')}" for name in BACKBONES}
