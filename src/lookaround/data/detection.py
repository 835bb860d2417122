"""Images with boxes for a trainer: scenes of our own, any set in COCO's format, any in Pascal VOC's."""

import logging
import random
from collections.abc import Callable
from pathlib import Path

from lightning.pytorch import LightningDataModule

from lookaround.data.annotations import Annotations
from lookaround.data.detection_dataset import BoxDataset
from lookaround.data.detection_parts import (
    PARTS,
    BoxSettings,
    read_coco_parts,
    read_scenes,
    read_voc_parts,
)
from lookaround.data.detection_preprocessing import DetectionAugmentation, DetectionPreprocessing
from lookaround.data.findings import joined
from lookaround.data.folder import STATISTICS
from lookaround.data.loading import (
    EpochSampler,
    ImageLoader,
    TrainLoader,
    check_numbers,
    evaluation_loader,
    training_loader,
)
from lookaround.data.scenes_to_make import ScenesToMake
from lookaround.errors import ArgumentError, DataError, UnknownNameError, closest, message

Reader = Callable[[BoxSettings], dict[str, Annotations]]
SOURCES: dict[str, Reader] = {"scenes": read_scenes, "coco": read_coco_parts, "voc": read_voc_parts}
IMAGE_SIZE = 640  # the paper's
LOGGER = logging.getLogger(__name__)
_NAME = "DetectionData"


class DetectionData(LightningDataModule):
    """Batches (images, targets) to train, validate and test a detector, in torchvision's RetinaNet's form.

    Images are a list of float tensors, channels height width, normalised, each of its own size. Targets are a
    list of dicts, see `detection_dataset.Target`: boxes x1 y1 x2 y2 in pixels of the tensor, labels from 0.
    Training targets have no crowd boxes; validation and test targets have them, with `iscrowd` 1, and true
    figures are measured in the pixels of the files: `annotations(part).to_coco()` and
    `detection_dataset.to_original`.

    Order and random changes are functions of (seed, epoch, index) as in `ClassificationData`. What is wrong
    with files and boxes is dropped or clipped at setup, and logged once; see `summary`.

    Args:
        dataset: "scenes" (written by `lookaround data scenes`), "coco" or "voc".
        root: the folder of the set.
        image_size: the longer side of the images as the network sees them; None: 640, for scenes their own.
        in_channels: 1 for grey, 3 for colour; None: 3.
        batch_size: images a step and process.
        num_workers: processes that decode images.
        validation_fraction: share of the training images set aside where the set has no validation part.
        augment: "none", "flip" or "paper"; see `DetectionAugmentation`.
        jitter: smallest and largest scale of "paper".
        annotation_files: json file of each part (train, val, test) relative to root; None: look for them.
        image_folders: image folder of each part, likewise.
        verify: whether to look into every image file at setup, so that broken ones are dropped; without, a
            broken one is met while training and ends it with a DataError.
        scenes: scenes to write where `dataset` is "scenes" and there is nothing at `root`; None: write none.
            Those that are there are taken as they are.
        seed: of the validation split, the order and the random changes.

    Raises:
        ArgumentError: an argument cannot be used.
        DataError: on setup, files cannot be used.
    """

    def __init__(
        self,
        dataset: str = "scenes",
        root: str | None = None,
        image_size: int | None = None,
        in_channels: int | None = None,
        batch_size: int = 8,
        num_workers: int = 0,
        validation_fraction: float = 0.1,
        augment: str = "none",
        jitter: tuple[float, float] = (0.8, 1.2),
        annotation_files: dict[str, str] | None = None,
        image_folders: dict[str, str] | None = None,
        verify: bool = True,
        scenes: ScenesToMake | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if dataset not in SOURCES:
            hint = closest(str(dataset), list(SOURCES))
            raise UnknownNameError(
                message(_NAME, "dataset must be a known kind of set", repr(dataset), hint=hint)
            )
        check_numbers(_NAME, batch_size, num_workers, validation_fraction, in_channels)
        self.dataset, self.seed, self.scenes = dataset, seed, scenes
        self.batch_size, self.num_workers = batch_size, num_workers
        self.validation_fraction = validation_fraction
        self.settings = BoxSettings(
            root,
            {} if annotation_files is None else annotation_files,
            {} if image_folders is None else image_folders,
            verify,
        )
        channels = 3 if in_channels is None else in_channels
        size = IMAGE_SIZE if image_size is None else image_size
        self._own_size = image_size is None and dataset == "scenes"
        self._augmentation = DetectionAugmentation(
            DetectionPreprocessing(size, channels, *STATISTICS[channels]), augment, (jitter[0], jitter[1])
        )
        self._parts: dict[str, Annotations] | None = None

    def prepare_data(self) -> None:
        """Write the scenes that are asked for and are not there.

        Raises:
            DataError: they cannot be written.
        """
        root = self.settings.root
        if self.scenes is not None and self.dataset == "scenes" and root is not None:
            folder = Path(root)
            if not folder.exists():
                self.scenes.write(folder)

    def setup(self, stage: str | None = None) -> None:
        """Read the set, look into its files, set validation images aside, and log what was wrong."""
        if self._parts is not None:
            return
        parts = SOURCES[self.dataset](self.settings)
        summaries = [part.summary for part in parts.values()]
        if "val" not in parts:
            parts["train"], parts["val"] = set_images_aside(
                parts["train"], self.validation_fraction, self.seed
            )
        share = len(parts["train"]) // self._world()[0]
        if self.batch_size > share:
            must = f"batch_size must be at most the number of training images of a process, {share}"
            raise ArgumentError(message(_NAME, must, self.batch_size, hint=f"try {max(1, share // 4)}."))
        if self._own_size:
            self._take_size_of(parts["train"])
        self._parts = parts
        self.summary = joined(summaries)
        if self._world()[1] == 0:
            wrong = any(summary.findings for summary in summaries)
            LOGGER.log(logging.WARNING if wrong else logging.INFO, "%s", self.summary)

    def _take_size_of(self, annotations: Annotations) -> None:
        size = max(max(image.width, image.height) for image in annotations.images)
        known = self._augmentation.preprocessing
        chosen = DetectionPreprocessing(size, known.in_channels, known.mean, known.std)
        self._augmentation = DetectionAugmentation(
            chosen, self._augmentation.augment, self._augmentation.jitter
        )

    @property
    def parts(self) -> dict[str, Annotations]:
        """The images of `train`, `val` and, where there are some, `test`; reads them first if need be."""
        self.setup()
        assert self._parts is not None
        return self._parts

    def annotations(self, part: str) -> Annotations:
        """The true boxes of a part in the pixels of its files; `.to_coco()` is what evaluators read.

        Raises:
            UnknownNameError: `part` is not "train", "val" or "test".
            DataError: the set has no such part.
        """
        if part not in PARTS:
            must = "part must be a part of the set"
            raise UnknownNameError(message(_NAME, must, repr(part), hint=closest(str(part), PARTS)))
        if part not in self.parts:
            got = repr(self.settings.root)
            hint = "add annotations for it, or use validate."
            raise DataError(message(_NAME, f"the images must have a {part} part", got, hint=hint))
        return self.parts[part]

    @property
    def class_names(self) -> list[str]:
        """The name of each label."""
        return list(self.parts["train"].categories.names)

    @property
    def category_ids(self) -> list[int]:
        """The id that each label has in the files."""
        return list(self.parts["train"].categories.ids)

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @property
    def preprocessing(self) -> DetectionPreprocessing:
        """How an image becomes a tensor when the network is evaluated."""
        self.setup()
        return self._augmentation.preprocessing

    @property
    def has_test(self) -> bool:
        """Whether there are images to test on."""
        return "test" in self.parts

    def train_dataloader(self) -> TrainLoader:
        """Shuffled, augmented, full batches without crowd boxes."""
        images = self.annotations("train")
        num_replicas, rank = self._world()
        sampler = EpochSampler(len(images), self.seed, num_replicas, rank)
        return training_loader(self._dataset(images), sampler, self.batch_size, self.num_workers)

    def val_dataloader(self) -> ImageLoader:
        """Every validation image, in order."""
        return self._evaluation("val")

    def test_dataloader(self) -> ImageLoader:
        """Every test image, in order.

        Raises:
            DataError: the set has no test images.
        """
        return self._evaluation("test")

    def _evaluation(self, part: str) -> ImageLoader:
        return evaluation_loader(self._dataset(self.annotations(part)), self.batch_size, self.num_workers)

    def _dataset(self, images: Annotations) -> BoxDataset:
        self.setup()
        return BoxDataset(images, self._augmentation, self.seed)

    def _world(self) -> tuple[int, int]:
        return (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)


def set_images_aside(images: Annotations, fraction: float, seed: int) -> tuple[Annotations, Annotations]:
    """Return what is left of the images and a `fraction` of them, at least one, drawn by `seed`.

    Raises:
        DataError: there is a single image.
    """
    number = len(images)
    if number < 2:
        must = "there must be at least two images where a part is set aside"
        hint = "add images, or give the set a validation part of its own."
        raise DataError(message(_NAME, must, f"{number} in {images.summary.source!r}", hint=hint))
    chosen = min(max(1, round(fraction * number)), number - 1)
    taken = set(random.Random(seed).sample(range(number), chosen))
    rest = [index for index in range(number) if index not in taken]
    return images.select(rest), images.select(sorted(taken))
