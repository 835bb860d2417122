import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image

from coco_files import annotation, image, write_coco
from lookaround.data.detection import DetectionData
from lookaround.errors import ArgumentError, CheckpointError, ConfigError, UnknownNameError
from lookaround.models import create_model, save_model
from lookaround.tasks.classification import ClassificationTask
from lookaround.tasks.coco_metrics import FIGURES
from lookaround.tasks.detection import DetectionTask
from lookaround.tasks.optimization import OptimizerConfig

NAME = "sasa_retinanet_resnet14_small"
TINY = {"width": 0.125, "num_heads": 2, "pyramid_channels": 8, "head_depth": 1}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Pictures of 40x30 with a bright square each, a crowd, one picture without boxes."""
    folder = tmp_path_factory.mktemp("set")
    for part in ("train", "val", "test"):
        boxes = [annotation(2 * index, index, bbox=[6 + index, 6, 16, 16]) for index in range(1, 4)]
        boxes += [annotation(2 * index + 1, index, bbox=[2, 2, 30, 20], iscrowd=1) for index in range(1, 3)]
        write_coco(folder, images=[image(index) for index in range(1, 5)], annotations=boxes, part=part)
        for index in range(1, 5):
            pixels = np.full((30, 40, 3), 60, dtype=np.uint8)
            pixels[6:22, 6 + index : 22 + index] = 220 if index < 4 else 60
            Image.fromarray(pixels).save(folder / part / f"{index}.png")
    return folder


def data(root, **options):
    return DetectionData("coco", str(root), image_size=64, batch_size=2, **options)


def task(**options):
    return DetectionTask(NAME, TINY, **options)


def trainer(tmp_path, **options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return pl.Trainer(
        **(
            {"default_root_dir": tmp_path, "accelerator": "cpu", "max_epochs": 1, "logger": False}
            | quiet
            | options
        )
    )


def test_losses_and_figures_are_logged(root, tmp_path):
    detector, run = task(), trainer(tmp_path)
    run.fit(detector, datamodule=data(root))
    parts = ("loss", "class_loss", "box_loss")
    expected = {f"{stage}_{part}" for stage in ("train", "val") for part in parts}
    metrics = run.callback_metrics
    assert expected | {"val_map", "val_map50"} <= set(metrics)
    assert float(metrics["val_loss"]) == pytest.approx(
        float(metrics["val_class_loss"] + metrics["val_box_loss"]), rel=1e-5
    )
    assert detector.network.config.num_classes == 2
    assert detector.scores.images == 4
    run.test(detector, datamodule=run.datamodule, verbose=False)
    assert {f"test_{name}" for name in FIGURES} <= set(run.callback_metrics)


def test_boxes_are_judged_in_pixels_of_the_files(root, tmp_path, monkeypatch):
    """The network is replaced by one that finds exactly what is there, in pixels of its own images."""
    detector = task(num_classes=2, in_channels=3)

    def evaluate(images, targets):
        losses = {"classification": torch.tensor(1.0), "bbox_regression": torch.tensor(0.5)}
        assert all(set(target) == {"boxes", "labels"} for target in targets)
        return losses, [target | {"scores": torch.ones(len(target["labels"]))} for target in targets]

    monkeypatch.setattr(detector.network, "evaluate", evaluate)
    run = trainer(tmp_path)
    run.validate(detector, datamodule=data(root), verbose=False)
    assert float(run.callback_metrics["val_map"]) == pytest.approx(1)
    assert float(run.callback_metrics["val_loss"]) == pytest.approx(1.5)
    assert [entry["bbox"] for entry in detector.scores.detections] == [
        pytest.approx([6 + index, 6, 16, 16], abs=1e-4) for index in range(1, 4)
    ]
    assert {entry["category_id"] for entry in detector.scores.detections} == {3}


def test_validation_losses_are_those_of_training_without_crowds(root, tmp_path):
    detector, run = task(), trainer(tmp_path, limit_val_batches=1)
    images = data(root)
    run.validate(detector, datamodule=images, verbose=False)
    batch, targets = next(iter(images.val_dataloader()))
    assert [int(target["iscrowd"].sum()) for target in targets] == [1, 1]
    single = [{key: target[key][target["iscrowd"] == 0] for key in ("boxes", "labels")} for target in targets]
    for module in detector.network.modules():
        module.training = module is detector.network  # losses, with the statistics of evaluation
    losses = detector.network(batch, single)
    assert float(run.callback_metrics["val_class_loss"]) == pytest.approx(
        float(losses["classification"]), rel=1e-4
    )
    assert float(run.callback_metrics["val_box_loss"]) == pytest.approx(
        float(losses["bbox_regression"]), rel=1e-4
    )


def test_the_backbone_comes_from_a_classification(root, tmp_path):
    classifier = create_model("sasa_resnet14_small", width=0.125, num_heads=2, small=False, num_classes=5)
    save_model(classifier, tmp_path / "run")
    detector = task(backbone=str(tmp_path / "run"), optimizer=OptimizerConfig(learning_rate=1e-9))
    run = trainer(tmp_path, limit_train_batches=1, limit_val_batches=0)
    run.fit(detector, datamodule=data(root))
    body = detector.network.backbone.body
    assert torch.allclose(body.layer1[0].conv1.weight, classifier.layer1[0].conv1.weight, atol=1e-6)

    run.save_checkpoint(tmp_path / "a.ckpt")
    (tmp_path / "run" / "weights.safetensors").unlink()  # to go on needs it no more
    again = task(backbone=str(tmp_path / "run"), optimizer=OptimizerConfig(learning_rate=1e-9))
    more = trainer(tmp_path, max_epochs=2, limit_train_batches=1, limit_val_batches=0)
    more.fit(again, datamodule=data(root), ckpt_path=tmp_path / "a.ckpt")
    assert more.global_step == 2
    with pytest.raises(CheckpointError, match="the weights file must exist"):
        trainer(tmp_path).fit(task(backbone=str(tmp_path / "run")), datamodule=data(root))


def test_checkpoints_rebuild_the_task(root, tmp_path):
    detector, run = task(optimizer=OptimizerConfig(ema_decay=0.9)), trainer(tmp_path, limit_train_batches=1)
    run.fit(detector, datamodule=data(root))
    run.save_checkpoint(tmp_path / "a.ckpt")
    again = DetectionTask.load_from_checkpoint(tmp_path / "a.ckpt").eval()
    images = [torch.randn(3, 32, 64)]
    with torch.no_grad():
        ours, theirs = detector.eval()(images)[0], again(images)[0]
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_network_for_something_else_is_refused():
    with pytest.raises(ArgumentError, match="model must be a network for detection; got 'resnet14_small'"):
        DetectionTask("resnet14_small")
    match = f"(?s)model must be a network for classification; got '{NAME}'.*hint: try one of .*resnet14_small"
    with pytest.raises(ArgumentError, match=match):
        ClassificationTask(NAME)
    with pytest.raises(UnknownNameError, match="did you mean"):
        DetectionTask("sasa_retinanet_resnet14_smal")


def test_the_data_must_tell_the_true_boxes(root, tmp_path):
    loader = data(root).val_dataloader()
    with pytest.raises(ConfigError, match="the data must tell the true boxes; got NoneType"):
        trainer(tmp_path).validate(task(num_classes=2, in_channels=3), loader, verbose=False)
    with pytest.raises(ConfigError, match="DetectionTask: the data must say num_classes"):
        trainer(tmp_path).validate(task(), loader, verbose=False)
