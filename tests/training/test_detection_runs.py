"""Runs of detectors, from the command line to the files of the run folder."""

import csv
import json

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from lookaround.cli.main import main
from lookaround.models import RetinaNetConfig, load_model
from lookaround.tasks.detection import DetectionTask
from lookaround.training.files import read_rows
from lookaround.training.recipes import FOLDER, list_recipes
from scene_runs import scene_run

MEASURED = ("precision_recall.png", "classes.csv", "detections.json")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A run of two epochs, tested and validated."""
    folder = tmp_path_factory.mktemp("out")
    assert scene_run("fit", folder, "--trainer.max_epochs", "2") == 0
    for command in ("test", "validate"):
        assert scene_run(command, folder) == 0
    return folder


def test_a_run_leaves_everything(out):
    folder = out / "runs" / "run"
    names = {path.name for path in folder.iterdir()}
    files = {"config.yaml", "metrics.csv", "environment.json", "weights.safetensors", "model.json"}
    files |= {"learning_curves.png", "checkpoints", "logs", "test.json", "validate.json"}
    files |= {f"{beginning}{name}" for beginning in ("", "test_", "validate_") for name in MEASURED}
    assert names == files
    rows = read_rows(folder / "metrics.csv")
    assert len(rows) == 2
    assert {"train_loss", "val_loss", "val_map", "val_map50", "learning_rate"} <= set(rows[0])
    for picture in ("learning_curves.png", "precision_recall.png"):
        with Image.open(folder / picture) as opened:
            assert opened.format == "PNG"


def test_the_scenes_were_made_and_are_not_made_again(out):
    document = json.loads((out / "scenes" / "annotations" / "instances_train.json").read_text())
    assert len(document["images"]) == 8
    before = (out / "scenes" / "annotations" / "instances_train.json").stat().st_mtime_ns
    assert scene_run("validate", out) == 0
    assert (out / "scenes" / "annotations" / "instances_train.json").stat().st_mtime_ns == before


def test_figures_classes_and_boxes_can_be_read(out):
    folder = out / "runs" / "run"
    tested = json.loads((folder / "test.json").read_text())
    assert tested["checkpoint"] == "last.ckpt"
    assert 0 <= tested["test_map"] <= 1
    assert tested["test_map_large"] is None  # no object is that large
    with (folder / "test_classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [str(digit) for digit in range(10)]
    boxes = json.loads((folder / "test_detections.json").read_text())
    assert all(set(box) == {"image_id", "category_id", "bbox", "score"} for box in boxes)


def test_the_weights_are_a_model(out):
    model, record = load_model(out / "runs" / "run")
    assert record.category_ids == list(range(1, 11))
    assert record.preprocessing["image_size"] == 48
    assert model.config.pyramid_channels == 8
    assert len(model([torch.zeros(3, 48, 48)])) == 1


def test_a_run_can_be_done_again_from_its_own_settings(out, tmp_path):
    config = out / "runs" / "run" / "config.yaml"
    told = ["--config", str(config), "--out", str(tmp_path), "--trainer.fast_dev_run", "true"]
    assert main(["fit", *told]) == 0
    assert yaml.safe_load(config.read_text())["data"]["scenes"]["images"] == 12


def test_interrupted_and_resumed_ends_in_the_same_bits(out, monkeypatch):
    step = DetectionTask.training_step

    def interrupted(self, batch, batch_idx):
        if (self.current_epoch, batch_idx) == (1, 1):
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    with monkeypatch.context() as context:
        context.setattr(DetectionTask, "training_step", interrupted)
        assert scene_run("fit", out, "--trainer.max_epochs", "2", name="again") == 130
    assert scene_run("fit", out, "--trainer.max_epochs", "2", "--resume", name="again") == 0
    ours, theirs = (load_file(out / "runs" / name / "weights.safetensors") for name in ("run", "again"))
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_options_of_the_command_line_choose_the_task_too(out, capsys):
    words = [
        "--model.model",
        "retinanet_resnet14_small",
        "--data.root",
        str(out / "scenes"),
        "--print_config",
    ]
    assert main(["fit", *words]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["data"]["dataset"] == "scenes"
    assert "label_smoothing" not in config["model"]
    assert main(["fit", "--model.model=resnet14_small", "--print_config"]) == 0
    assert "label_smoothing" in yaml.safe_load(capsys.readouterr().out)["model"]


def test_wrong_settings_are_named(out, tmp_path, capsys):
    assert scene_run("fit", tmp_path, "--model.label_smoothing", "0.1") == 2
    assert "label_smoothing" in capsys.readouterr().err
    assert scene_run("fit", tmp_path, "--data.scenes.images", "2") == 2
    assert "--images must be at least 3" in capsys.readouterr().err
    assert scene_run("fit", tmp_path, "--data.scenes", "null") == 2
    assert "write some: lookaround data scenes --out" in capsys.readouterr().err
    assert scene_run("fit", out, "--model.backbone", "/no/such", name="b") == 2
    assert "the weights file must exist" in capsys.readouterr().err
    assert not (out / "runs" / "b").exists()


SCENES = [
    "scenes_convolution_retinanet",
    "scenes_attention_heads_retinanet",
    "scenes_attention_backbone_retinanet",
    "scenes_attention_retinanet",
]


def recipe(name):
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


def config_of(settings) -> RetinaNetConfig:
    from lookaround import create_model

    with torch.device("meta"):
        return create_model(settings["model"]["model"], **settings["model"]["overrides"]).config


def test_the_forms_on_scenes_differ_in_kind_alone():
    recipes = [recipe(name) for name in SCENES]
    configs = [config_of(settings) for settings in recipes]
    kinds = [(bool(config.attention_stages), config.heads, config.pyramid) for config in configs]
    assert kinds == [
        (False, "convolution", "convolution"),
        (False, "attention", "convolution"),
        (True, "convolution", "convolution"),
        (True, "attention", "convolution"),
    ]
    assert len({(c.depths, c.width, c.levels, c.anchors, c.pyramid_channels, c.norm) for c in configs}) == 1
    for settings in recipes:
        settings["model"].pop("model")
        settings["model"].pop("overrides")
    assert recipes[0] == recipes[1] == recipes[2] == recipes[3]


@pytest.mark.parametrize("name", [name for name in list_recipes() if name.startswith("coco_")])
def test_coco_is_trained_as_the_paper_says(name):
    settings = recipe(name)
    config, optimizer = config_of(settings), settings["model"]["optimizer"]
    data, trainer = settings["data"], settings["trainer"]
    assert trainer["max_epochs"] == 150
    assert data["batch_size"] * trainer["accumulate_grad_batches"] == 64
    assert (optimizer["learning_rate"], optimizer["reference_batch_size"]) == (0.12, 64)
    assert optimizer["warmup_epochs"] == 1
    assert (data["image_size"], data["augment"]) == (640, "paper")
    assert (config.anchors, config.anchor_scale, config.levels) == ("paper", 4.0, (3, 4, 5, 6, 7))
    assert (config.focal_alpha, config.box_loss_delta, config.box_loss_weight) == (0.25, 0.1, 50.0)
    assert (config.pyramid, config.num_classes) == ("convolution", 90)
