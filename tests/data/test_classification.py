import lightning.pytorch as pl
import pytest
import torch

from lookaround.data import digits
from lookaround.data.classification import ClassificationData
from lookaround.data.source import stratified_split
from lookaround.errors import ArgumentError, UnknownNameError


def test_digits_are_split_by_class():
    data = ClassificationData("digits")
    data.setup()
    parts = (data.splits.train, data.splits.validation, data.splits.test)
    assert [len(part.targets) for part in parts] == [1295, 143, 359]
    for part in parts:
        counts = torch.bincount(torch.tensor(part.targets))
        assert counts.max() <= 1.2 * counts.min()
    assert data.class_names == [str(digit) for digit in range(10)]


def test_digits_of_the_test_are_the_same_for_every_seed():
    first, second = ClassificationData("digits", seed=0), ClassificationData("digits", seed=1)
    assert torch.equal(first.splits.test.images, second.splits.test.images)
    assert not torch.equal(first.splits.validation.images, second.splits.validation.images)


def test_runs_with_different_seeds_can_share_the_images_that_are_set_aside():
    first, second = (ClassificationData("digits", seed=seed, split_seed=7) for seed in (0, 1))
    assert torch.equal(first.splits.validation.images, second.splits.validation.images)
    assert torch.equal(first.splits.train.images, second.splits.train.images)
    labels = [next(iter(data.train_dataloader()))[1].tolist() for data in (first, second)]
    assert labels[0] != labels[1], "the order is still the seed's"
    own = ClassificationData("digits", seed=7)
    assert torch.equal(own.splits.validation.images, first.splits.validation.images)


def test_holding_out_changes_nothing_where_there_is_no_validation_part():
    plain, held = ClassificationData("digits"), ClassificationData("digits", hold_out=True)
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(plain.splits, part).images, getattr(held.splits, part).images)


def test_digits_statistics_are_those_of_the_images():
    data = ClassificationData("digits")
    parts = (data.splits.train, data.splits.validation, data.splits.test)
    pixels = torch.cat([part.images for part in parts]).double() / 255
    assert pixels.mean().item() == pytest.approx(digits.MEAN, abs=1e-3)
    assert pixels.std().item() == pytest.approx(digits.STD, abs=1e-3)
    assert pixels.max() == 1


def test_size_and_channels_can_be_asked_for():
    data = ClassificationData("digits", image_size=28, in_channels=3, batch_size=5)
    images, _ = next(iter(data.train_dataloader()))
    assert images.shape == (5, 3, 28, 28)
    assert torch.equal(images[:, 0], images[:, 2])
    assert len(data.preprocessing.mean) == 3


def test_unknown_set_names_the_closest():
    with pytest.raises(
        UnknownNameError, match=r"got 'digit'.\nhint: did you mean 'digits'\? Known: digits, fashion_mnist"
    ):
        ClassificationData("digit")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"num_workers": -1}, "num_workers must be at least 0; got -1"),
        ({"validation_fraction": 0.0}, "validation_fraction must be greater than 0 and less than 1; got 0.0"),
        ({"validation_fraction": 1.0}, "validation_fraction must be greater than 0 and less than 1; got 1.0"),
        ({"in_channels": 2}, r"in_channels must be 1 \(grey\), 3 \(RGB\) or None; got 2"),
        ({"augment": "papers"}, "did you mean 'paper'"),
    ],
)
def test_bad_arguments(options, words):
    with pytest.raises(ArgumentError, match=words):
        ClassificationData("digits", **options)


def test_batch_larger_than_the_training_set():
    with pytest.raises(ArgumentError, match=r"batch_size must be at most .*, 1295; got 2000.\nhint: try 323"):
        ClassificationData("digits", batch_size=2000).setup()


def test_split_keeps_every_class_on_both_sides():
    targets = [0] * 2 + [1] * 50
    rest, part = stratified_split(targets, 0.1, 0, ["rare", "common"])
    assert sorted(rest + part) == list(range(52))
    assert sum(targets[index] == 0 for index in part) == 1
    assert sum(targets[index] == 1 for index in part) == 5
    assert stratified_split(targets, 0.1, 0, ["rare", "common"]) == (rest, part)
    assert stratified_split(targets, 0.1, 1, ["rare", "common"]) != (rest, part)


class Linear(pl.LightningModule):
    """Remembers the labels it sees."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)
        self.seen: list[list[int]] = []
        self.stop_at = stop_at

    def training_step(self, batch, index):
        images, labels = batch
        if self.global_step == self.stop_at:
            raise InterruptedError
        self.seen.append(labels.tolist())
        return torch.nn.functional.cross_entropy(self.layer(images.flatten(1)), labels)

    def validation_step(self, batch, index):
        images, labels = batch
        self.log("val_loss", torch.nn.functional.cross_entropy(self.layer(images.flatten(1)), labels))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)


def train(folder, model: Linear, checkpoint: str | None = None, every: int = 1) -> None:
    saving = pl.callbacks.ModelCheckpoint(folder, every_n_train_steps=every, save_last=True)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=3,
        callbacks=[saving],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = ClassificationData("digits", batch_size=400, augment="shift")
    trainer.fit(model, data, ckpt_path=checkpoint)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stop_at", [1, 2, 3, 4, 5, 8])
def test_an_interrupted_run_sees_what_the_whole_run_sees(tmp_path, stop_at):
    torch.manual_seed(0)
    whole = Linear()
    train(tmp_path / "whole", whole)
    torch.manual_seed(0)
    begun, resumed = Linear(stop_at), Linear()
    with pytest.raises(InterruptedError):
        train(tmp_path / "begun", begun)
    train(tmp_path / "begun", resumed, str(tmp_path / "begun" / "last.ckpt"))
    assert len(whole.seen) == 9
    assert begun.seen + resumed.seen == whole.seen
    assert torch.equal(resumed.layer.weight, whole.layer.weight)
