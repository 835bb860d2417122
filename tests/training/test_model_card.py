"""Model cards: every number from the files of a run, nothing that is not known, a head that the hub reads."""

import json
from pathlib import Path

import pytest
import yaml

from lookaround.errors import CheckpointError
from lookaround.models import create_model, save_model
from lookaround.training.card_facts import read_card_facts
from lookaround.training.model_card import write_card

ENVIRONMENT = {
    "versions": {"torch": "2.99.0"},
    "commit": "0123456789abcdef",
    "cpu": {"model": "Some CPU", "threads": 1},
    "gpus": [],
    "epochs": 3,
    "duration_seconds": 61.7,
}


def write_run(folder: Path, name: str, options: dict, settings: dict, tested: dict) -> Path:
    preprocessing = {"image_size": 12, "in_channels": 1, "mean": [0.5], "std": [0.5], "crop_fraction": 1.0}
    model = create_model(name, width=0.125, num_heads=2, in_channels=1, num_classes=2, **options)
    save_model(model, folder, preprocessing=preprocessing, class_names=["cat", "dog"])
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "test.json").write_text(json.dumps(tested))
    (folder / "environment.json").write_text(json.dumps(ENVIRONMENT))
    return folder


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    settings = {
        "seed_everything": 5,
        "name": "pets",
        "trainer": {"max_epochs": 3, "precision": None, "devices": "auto"},
        "model": {"model": "sasa_resnet14_small", "optimizer": {"learning_rate": 0.25}},
        "data": {"dataset": "fashion_mnist", "root": "/some/where", "num_workers": 7, "batch_size": 64},
    }
    tested = {
        "checkpoint": "last.ckpt",
        "test_loss": 0.5,
        "test_accuracy": 0.87654,
        "test_accuracy_top5": None,
    }
    return write_run(tmp_path / "run", "sasa_resnet14_small", {}, settings, tested)


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    settings = {
        "name": "finder",
        "model": {"backbone": "/some/where/weights.safetensors"},
        "data": {"dataset": "scenes", "scenes": {"source": "digits", "images": 40, "download": True}},
    }
    tested = {"test_map": 0.41538, "test_map50": 0.7, "test_map_large": None}
    options = {"pyramid_channels": 8, "head_depth": 1}
    return write_run(tmp_path / "run", "sasa_retinanet_resnet14_small", options, settings, tested)


def head(card: str) -> dict:
    _, front, _ = card.split("---\n", 2)
    return yaml.safe_load(front)


def test_a_classifier_is_described(classifier: Path) -> None:
    card = write_card(read_card_facts(classifier))
    assert "# sasa_resnet14_small, Fashion-MNIST\n" in card
    assert "2 classes: cat, dog." in card
    assert "| accuracy, test images | 87.65% |" in card
    assert "top-5" not in card
    assert "num_heads=2" in card
    assert "square, 12 pixels a side, grey" in card
    assert "MIT licence" in card
    assert "as pets; 3 epochs in 62 seconds on Some CPU, 1 thread; torch 2.99.0, commit 0123456789ab." in card
    assert "Code and weights: Apache-2.0. The data keep theirs" in card


def test_the_recipe_says_what_was_learnt_and_not_where(classifier: Path) -> None:
    card = write_card(read_card_facts(classifier))
    recipe = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
    assert recipe == {
        "seed_everything": 5,
        "trainer": {"max_epochs": 3},
        "model": {"model": "sasa_resnet14_small", "optimizer": {"learning_rate": 0.25}},
        "data": {"dataset": "fashion_mnist", "batch_size": 64},
    }
    assert "/some/where" not in card


def test_the_head_is_what_the_hub_reads(classifier: Path) -> None:
    front = head(write_card(read_card_facts(classifier)))
    assert (front["license"], front["pipeline_tag"]) == ("apache-2.0", "image-classification")
    (result,) = front["model-index"][0]["results"]
    assert result["dataset"] == {"type": "fashion_mnist", "name": "Fashion-MNIST", "split": "test"}
    assert result["metrics"] == [{"type": "accuracy", "name": "accuracy", "value": 0.87654}]


def test_a_detector_is_described(detector: Path) -> None:
    card = write_card(read_card_facts(detector))
    assert head(card)["pipeline_tag"] == "object-detection"
    assert "timm" not in head(card)["tags"]
    assert "| mAP (COCO, overlaps 0.5 to 0.95), test images | 0.415 |" in card
    assert "composes on textured ground, from [scikit-learn's digits]" in card
    assert "backbone: weights.safetensors" in card
    assert "--out found" in card
    assert "/some/where" not in card


def test_a_gpu_is_named(classifier: Path) -> None:
    document = ENVIRONMENT | {"gpus": [{"name": "Some GPU"}]}
    (classifier / "environment.json").write_text(json.dumps(document))
    assert "62 seconds on Some GPU;" in write_card(read_card_facts(classifier))


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    save_model(
        create_model("resnet14_small", width=0.125, num_classes=30), tmp_path, class_names=list("abc") * 10
    )
    card = write_card(read_card_facts(tmp_path))
    assert "# resnet14_small\n" in card
    assert "Built of convolutions" in card
    assert "30 classes: a, b, c" in card
    assert ", …" in card
    assert "model-index" not in head(card)
    for word in ("## Recipe", "test images", "None", "| data |", "The data keep"):
        assert word not in card


def test_a_folder_without_a_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"the folder must hold model\.json"):
        read_card_facts(tmp_path)
