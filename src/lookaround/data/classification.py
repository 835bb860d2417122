"""Labelled images for a trainer: scikit-learn's digits, Fashion-MNIST, or any tree of image folders."""

from lightning.pytorch import LightningDataModule

from lookaround.data import digits, fashion_mnist, folder
from lookaround.data.augmentation import check_augment
from lookaround.data.loading import (
    EpochSampler,
    ImageLoader,
    TrainLoader,
    check_numbers,
    evaluation_loader,
    training_loader,
)
from lookaround.data.preprocessing import Preprocessing
from lookaround.data.source import Labelled, Settings, Source, Splits
from lookaround.errors import ArgumentError, DataError, UnknownNameError, closest, message

SOURCES: dict[str, Source] = {
    "digits": digits.SOURCE,
    "fashion_mnist": fashion_mnist.SOURCE,
    "folder": folder.SOURCE,
}


class ClassificationData(LightningDataModule):
    """Batches of (images, labels) to train, validate and test a classifier.

    The order of the training images is a function of (seed, epoch), and a random change to an image one of
    (seed, epoch, index): a run that is interrupted and resumed, in mid-epoch too, sees the same numbers
    whatever `num_workers` is. Training batches are full ones; the few images left over come in another epoch.

    Args:
        dataset: "digits" (8x8, comes with scikit-learn), "fashion_mnist" (28x28) or "folder" (a tree of your
            own).
        root: the folder of the images; needed for "folder", and where Fashion-MNIST is kept (default "data").
        image_size: side of the square that the network sees; None: the set's own, 224 for "folder".
        in_channels: 1 for grey, 3 for colour; None: what the images are.
        crop_fraction: share of the shorter side kept by the centre crop; None: 1, for "folder" 0.875.
        batch_size: images a step and process.
        num_workers: processes that decode images; 0 for the small sets, which are held in memory.
        validation_fraction: share of every class set aside where the set has no validation part of its own.
        augment: "none", "shift", "shift_flip" or "paper"; see `Preprocessing.training`.
        download: whether Fashion-MNIST may be downloaded.
        verify: whether to look at the header of every file of "folder" before training.
        seed: of the validation split, the order and the random changes.
        split_seed: of the validation split alone, so that runs with different seeds can share one; None:
            `seed`.
        hold_out: set validation images aside from the training images even where the set has a validation
            part of its own, which then is the test part if there is none; as the paper does on ImageNet.

    Raises:
        ArgumentError: an argument cannot be used.
        DataError: on setup, images or folders cannot be used.

    Example:
        >>> data = ClassificationData("digits", batch_size=32)
        >>> data.setup()
        >>> images, labels = next(iter(data.train_dataloader()))
        >>> images.shape, data.num_classes
        (torch.Size([32, 1, 8, 8]), 10)
    """

    def __init__(
        self,
        dataset: str = "digits",
        root: str | None = None,
        image_size: int | None = None,
        in_channels: int | None = None,
        crop_fraction: float | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        validation_fraction: float = 0.1,
        augment: str = "none",
        download: bool = True,
        verify: bool = True,
        seed: int = 0,
        split_seed: int | None = None,
        hold_out: bool = False,
    ) -> None:
        super().__init__()
        if dataset not in SOURCES:
            hint = closest(str(dataset), list(SOURCES))
            raise UnknownNameError(
                message(_NAME, "dataset must be a known data set", repr(dataset), hint=hint)
            )
        check_augment(_NAME, augment)
        check_numbers(_NAME, batch_size, num_workers, validation_fraction, in_channels)
        self.dataset, self.augment, self.seed = dataset, augment, seed
        self.batch_size, self.num_workers = batch_size, num_workers
        self.settings = Settings(
            root,
            image_size,
            in_channels,
            crop_fraction,
            validation_fraction,
            download,
            verify,
            seed if split_seed is None else split_seed,
            hold_out,
        )
        self._prepared = False
        self._splits: Splits | None = None

    def prepare_data(self) -> None:
        """Fetch and check the files; a trainer calls this once a machine."""
        if not self._prepared:
            SOURCES[self.dataset].prepare(self.settings)
            self._prepared = True

    def setup(self, stage: str | None = None) -> None:
        """Read the set and split it; also prepares it where no trainer has done so."""
        if self._splits is not None:
            return
        if self.trainer is None:
            self.prepare_data()
        splits = SOURCES[self.dataset].load(self.settings)
        share = len(splits.train.targets) // self._world()[0]
        if self.batch_size > share:
            must = f"batch_size must be at most the number of training images of a process, {share}"
            raise ArgumentError(message(_NAME, must, self.batch_size, hint=f"try {max(1, share // 4)}."))
        self._splits = splits

    @property
    def splits(self) -> Splits:
        """The three parts; reads them first where `setup` was not called."""
        self.setup()
        assert self._splits is not None
        return self._splits

    @property
    def class_names(self) -> list[str]:
        """The name of each label."""
        return list(self.splits.class_names)

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.splits.class_names)

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes a tensor when the network is evaluated."""
        return self.splits.preprocessing

    @property
    def has_test(self) -> bool:
        """Whether there are images to test on: not in a tree with a train folder and no test folder."""
        return self.splits.test is not None

    def train_dataloader(self) -> TrainLoader:
        """Shuffled, augmented, full batches."""
        dataset = self.splits.train.dataset(self.preprocessing, self.augment, self.seed)
        num_replicas, rank = self._world()
        sampler = EpochSampler(len(self.splits.train.targets), self.seed, num_replicas, rank)
        return training_loader(dataset, sampler, self.batch_size, self.num_workers)

    def val_dataloader(self) -> ImageLoader:
        """Every validation image, in order."""
        return self._evaluation(self.splits.validation)

    def test_dataloader(self) -> ImageLoader:
        """Every test image, in order.

        Raises:
            DataError: the set has no test images.
        """
        if self.splits.test is None:
            hint = "add a folder 'test' beside 'train', or use validate."
            raise DataError(
                message(_NAME, "the images must have a test part", repr(self.settings.root), hint=hint)
            )
        return self._evaluation(self.splits.test)

    def _evaluation(self, images: Labelled) -> ImageLoader:
        return evaluation_loader(images.dataset(self.preprocessing), self.batch_size, self.num_workers)

    def _world(self) -> tuple[int, int]:
        return (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)


_NAME = "ClassificationData"
