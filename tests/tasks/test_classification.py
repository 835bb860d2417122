import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lookaround.data.classification import ClassificationData
from lookaround.errors import ArgumentError, CheckpointError, ConfigError, UnknownNameError
from lookaround.tasks.classification import ClassificationTask, confusion_counts
from lookaround.tasks.optimization import OptimizerConfig

SMALL = {"width": 0.0625}


def trainer(tmp_path, **options):
    defaults = {"max_epochs": 1, "limit_train_batches": 3, "limit_val_batches": 2, "logger": False}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return pl.Trainer(default_root_dir=tmp_path, accelerator="cpu", **(defaults | quiet | options))


def task(**options):
    return ClassificationTask("resnet14_small", SMALL, **options)


def test_classes_channels_and_size_come_from_the_data(tmp_path):
    classifier, data = task(), ClassificationData("digits")
    trainer(tmp_path).fit(classifier, datamodule=data)
    assert classifier.network.config.num_classes == 10
    assert classifier.network.config.in_channels == 1
    assert classifier.example_input_array.shape == (1, 1, 8, 8)
    assert classifier.hparams["num_classes"] == 10


def test_without_data_the_task_must_be_told(tmp_path):
    loader = DataLoader(
        TensorDataset(torch.zeros(8, 1, 8, 8), torch.zeros(8, dtype=torch.long)), batch_size=4
    )
    with pytest.raises(ConfigError, match="the data must say num_classes; got None"):
        trainer(tmp_path).fit(task(), loader)
    told = ClassificationTask("resnet14_small", SMALL, num_classes=3, in_channels=1)
    trainer(tmp_path).fit(told, loader)
    assert told.network.config.num_classes == 3


@pytest.mark.parametrize(
    ("model", "overrides", "error", "match"),
    [
        ("resnet14_smal", {}, UnknownNameError, "did you mean 'resnet14_small'"),
        ("resnet14_small", {"widht": 1}, ArgumentError, "width"),
    ],
)
def test_wrong_names_show_before_anything_is_built(model, overrides, error, match):
    with pytest.raises(error, match=match):
        ClassificationTask(model, overrides)


def test_wrong_label_smoothing_is_refused():
    with pytest.raises(ArgumentError, match="label_smoothing must be at least 0 and below 1; got 1"):
        ClassificationTask("resnet14_small", label_smoothing=1.0)


def test_metrics_and_confusion_matrix(tmp_path):
    classifier, data = task(), ClassificationData("digits")
    run = trainer(tmp_path, limit_val_batches=1.0)
    run.fit(classifier, datamodule=data)
    metrics = run.callback_metrics
    assert {"train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_accuracy_top5"} <= set(metrics)
    counts = classifier.confusion_matrix
    assert counts.shape == (10, 10)
    assert int(counts.sum()) == len(data.val_dataloader().dataset)
    assert float(metrics["val_accuracy"]) == pytest.approx(int(counts.diagonal().sum()) / int(counts.sum()))


def test_validation_loss_is_without_label_smoothing(tmp_path):
    classifier = task(label_smoothing=0.5)
    run = trainer(tmp_path, limit_val_batches=1)
    data = ClassificationData("digits")
    run.validate(classifier, datamodule=data, verbose=False)
    images, labels = next(iter(data.val_dataloader()))
    expected = torch.nn.functional.cross_entropy(classifier.eval()(images), labels)
    assert float(run.callback_metrics["val_loss"]) == pytest.approx(expected.item(), rel=1e-5)


def test_confusion_counts_have_true_classes_in_rows():
    counts = confusion_counts(torch.tensor([2, 2, 0]), torch.tensor([1, 1, 0]), 3)
    assert counts.tolist() == [[1, 0, 0], [0, 0, 2], [0, 0, 0]]


def test_the_learning_rate_follows_batch_and_accumulation(tmp_path):
    optimizer = OptimizerConfig(learning_rate=0.1, reference_batch_size=16)
    classifier = task(optimizer=optimizer)
    run = trainer(tmp_path, accumulate_grad_batches=2)
    run.fit(classifier, datamodule=ClassificationData("digits", batch_size=32))
    assert classifier.global_batch_size() == 64
    assert run.lr_scheduler_configs[0].scheduler.base_lrs[0] == pytest.approx(0.4)


def test_the_cosine_reaches_its_end_with_accumulation(tmp_path):
    classifier = task(optimizer=OptimizerConfig(learning_rate=0.1))
    run = trainer(tmp_path, accumulate_grad_batches=2, limit_train_batches=5, max_epochs=2)
    run.fit(classifier, datamodule=ClassificationData("digits"))
    schedule = run.lr_scheduler_configs[0].scheduler
    assert run.global_step == 6
    assert schedule.last_epoch == 6
    assert schedule.get_last_lr()[0] == 0


def test_endless_training_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="the schedule needs an end; got max_epochs=-1"):
        trainer(tmp_path, max_epochs=-1).fit(task(), datamodule=ClassificationData("digits"))


def test_a_number_of_steps_is_an_end_too(tmp_path):
    run = trainer(tmp_path, max_epochs=-1, max_steps=4)
    run.fit(task(optimizer=OptimizerConfig(warmup_epochs=1)), datamodule=ClassificationData("digits"))
    assert run.global_step == 4


def test_checkpoints_hold_plain_types_and_rebuild_the_task(tmp_path):
    classifier = task(optimizer=OptimizerConfig(ema_decay=0.9))
    run = trainer(tmp_path)
    run.fit(classifier, datamodule=ClassificationData("digits"))
    run.save_checkpoint(tmp_path / "a.ckpt")
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert saved["hyper_parameters"]["optimizer"]["ema_decay"] == 0.9
    again = ClassificationTask.load_from_checkpoint(tmp_path / "a.ckpt")
    assert again.optimizer == classifier.optimizer
    images = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(again.eval()(images), classifier.eval()(images))


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    run = trainer(tmp_path)
    run.fit(task(), datamodule=ClassificationData("digits"))
    run.save_checkpoint(tmp_path / "a.ckpt")
    other = ClassificationTask("sasa_resnet14_small", {"width": 0.25})
    with pytest.raises(
        CheckpointError, match=r"must be of 'sasa_resnet14_small'.*checkpoint of 'resnet14_small'"
    ):
        trainer(tmp_path).test(other, datamodule=ClassificationData("digits"), ckpt_path=tmp_path / "a.ckpt")


def test_validation_sees_the_averaged_weights(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        ClassificationTask,
        "on_validation_batch_start",
        lambda self, *_: seen.append(self.network.fc.weight.detach().clone()),
        raising=False,
    )
    classifier = task(optimizer=OptimizerConfig(ema_decay=0.9, learning_rate=1.0))
    run = trainer(tmp_path, num_sanity_val_steps=0, limit_val_batches=1)
    run.fit(classifier, datamodule=ClassificationData("digits"))
    assert torch.equal(seen[0], classifier.network.fc.weight)  # the end keeps the average
    saved = tmp_path / "a.ckpt"
    run.save_checkpoint(saved)
    current = torch.load(saved, weights_only=True)["current_model_state"]["network.fc.weight"]
    assert current.shape == seen[0].shape


def test_images_become_channels_last(tmp_path):
    classifier = ClassificationTask("resnet14_small", SMALL, num_classes=2, in_channels=3)
    seen = []
    classifier.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    classifier(torch.zeros(2, 3, 8, 8))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert classifier.network.layer1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_training_may_begin_with_weights_of_the_package():
    from lookaround.models import load_model

    overrides = {"pretrained": "digits", "drop_path": 0.1}
    classifier = ClassificationTask("sasa_resnet14_small", overrides, num_classes=10, in_channels=1)
    expected, _ = load_model("digits")
    assert classifier.network.config.drop_path == 0.1
    assert torch.equal(classifier.network.fc.weight, expected.fc.weight)
    with pytest.warns(UserWarning, match="fc.bias, fc.weight begin at random"):
        ClassificationTask("sasa_resnet14_small", overrides, num_classes=3, in_channels=3)
