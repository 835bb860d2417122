"""How large the paper's networks are built and how long they are trained: one table, a row for each scale.

| scale | networks | images | training |
|---|---|---|---|
| paper | as printed | 224 pixels, 640 for detectors | the paper's recipes for ImageNet and COCO |
| small | fewer blocks, an eighth of the channels, stem keeps resolution | as they are | a minute on a core |
| tiny | one block a stage, an eighth of the channels | as they are | seconds, to see that it works |

Windows, borders, positions, stems and the stages that attend are the paper's at every scale. Widths multiply:
Figure 5's width 0.5 is 0.0625 at the small scale. Heads are fewer where there are fewer channels: one at an
eighth of them has as many channels as each of the paper's eight. Rows about what heads share have two.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lookaround.errors import UnknownNameError, closest, message

Depths = tuple[int, int, int, int]
PRINTED: Mapping[int, Depths] = {26: (1, 2, 4, 1), 38: (2, 3, 5, 2), 50: (3, 4, 6, 3)}
CLASSIFICATION_DATA = ("fashion_mnist", "digits", "folder")
DETECTION_DATA = ("scenes", "coco")
HELD_OUT_FRACTION = 0.04  # the paper's, of the training images


@dataclass(frozen=True)
class Training:
    """How one network is trained.

    Attributes:
        epochs: of the schedule, which warms up and then follows a cosine to zero.
        batch_size: images of a step.
        accumulated: batches of an optimizer step.
        images_per_epoch: training images of an epoch, others in each; None: all.
        images_to_measure: at most as many held-out and as many test images; None: all.
        algorithm: "sgd" (Nesterov) or "adamw".
        learning_rate: for a step of `reference_batch_size` images.
        reference_batch_size: what the learning rate is meant for.
        weight_decay: see `tasks.optimization.OptimizerConfig`.
        warmup_epochs: likewise.
        ema_decay: likewise.
        label_smoothing: of classifiers.
        augment: see the data modules.
        held_out_fraction: share of the training images that is set aside; the same ones for every seed.
        measure_once: measure these images, and write a checkpoint, in the last epoch alone; saves time where
            a training is short.
        image_size: side of the images; None: the set's own.
        num_workers: processes that decode images.
    """

    epochs: int
    batch_size: int
    accumulated: int = 1
    images_per_epoch: int | None = None
    images_to_measure: int | None = None
    algorithm: str = "adamw"
    learning_rate: float = 0.003
    reference_batch_size: int = 64
    weight_decay: float = 0.05
    warmup_epochs: float = 1.0
    ema_decay: float | None = 0.99
    label_smoothing: float = 0.1
    augment: str = "none"
    held_out_fraction: float = HELD_OUT_FRACTION
    measure_once: bool = False
    image_size: int | None = None
    num_workers: int = 0


@dataclass(frozen=True)
class Scale:
    """How the paper's networks are built, and how they are trained on each kind of data.

    Attributes:
        name: of the row.
        depths: blocks of the four stages of the networks of 26, 38 and 50 layers.
        width: factor of all channels, times the row's own width.
        num_heads: heads of the attention; None: the paper's eight.
        small: whether the stem keeps the resolution, for images of 28 to 64 pixels.
        batch_norm_momentum: weight of the newest batch in the running statistics.
        detector_layers: layers of a detector's backbone.
        detector: overrides of every detector.
        backbones: whether a detector's backbone has the form of a classifier of Table 1, and can begin with
            its weights.
        trainings: by kind of data: "fashion_mnist", "digits", "folder", "scenes", "coco".
        scenes: of the scenes that are made where there are none; see `data.scenes_to_make.ScenesToMake`.
    """

    name: str
    depths: Mapping[int, Depths]
    width: float
    num_heads: int | None
    small: bool
    trainings: Mapping[str, Training]
    batch_norm_momentum: float = 0.1
    detector_layers: int = 50
    detector: Mapping[str, float] = field(default_factory=dict)
    backbones: bool = False
    scenes: Mapping[str, int | str] = field(default_factory=dict)


_IMAGENET = Training(
    epochs=130,
    batch_size=256,
    accumulated=16,
    algorithm="sgd",
    learning_rate=1.6,
    reference_batch_size=4096,
    weight_decay=1e-4,
    warmup_epochs=10.0,
    ema_decay=0.9999,
    label_smoothing=0.1,
    augment="paper",
    image_size=224,
    num_workers=12,
)
_COCO = Training(
    epochs=150,
    batch_size=8,
    accumulated=8,
    algorithm="sgd",
    learning_rate=0.12,
    reference_batch_size=64,
    weight_decay=1e-4,
    warmup_epochs=1.0,
    ema_decay=None,
    augment="paper",
    image_size=640,
    num_workers=12,
)
_SCENES = Training(epochs=20, batch_size=8, reference_batch_size=8)
_TINY = Training(
    epochs=1,
    batch_size=16,
    images_per_epoch=48,
    images_to_measure=32,
    warmup_epochs=0.5,
    held_out_fraction=0.1,
)

SCALES: dict[str, Scale] = {
    scale.name: scale
    for scale in (
        Scale(
            name="paper",
            depths=PRINTED,
            width=1.0,
            num_heads=None,
            small=False,
            batch_norm_momentum=1e-4,
            trainings={
                "fashion_mnist": _IMAGENET,
                "digits": _IMAGENET,
                "folder": _IMAGENET,
                "scenes": _COCO,
                "coco": _COCO,
            },
            backbones=True,
            scenes={"images": 2400, "smallest": 24, "most_objects": 6, "clutter": 3},
        ),
        Scale(
            name="small",
            depths={26: (1, 1, 1, 1), 38: (1, 1, 2, 1), 50: (1, 2, 2, 1)},
            width=0.125,
            num_heads=1,
            small=True,
            trainings={
                "fashion_mnist": Training(
                    epochs=3,
                    batch_size=64,
                    images_per_epoch=6400,
                    measure_once=True,
                    learning_rate=0.01,
                    warmup_epochs=0.5,
                    ema_decay=0.9,
                    label_smoothing=0.05,
                ),
                "digits": Training(
                    epochs=40,
                    batch_size=32,
                    reference_batch_size=32,
                    warmup_epochs=2.0,
                    ema_decay=0.96,
                    augment="shift",
                    held_out_fraction=0.1,
                ),
                "folder": Training(
                    epochs=20,
                    batch_size=64,
                    label_smoothing=0.05,
                    augment="shift_flip",
                    image_size=32,
                ),
                "scenes": _SCENES,
                "coco": _SCENES,
            },
            detector_layers=14,
            detector={"width": 0.25, "num_heads": 4},
            scenes={"images": 2400, "smallest": 24, "most_objects": 6, "clutter": 3},
        ),
        Scale(
            name="tiny",
            depths={26: (1, 1, 1, 1), 38: (1, 1, 1, 1), 50: (1, 1, 1, 1)},
            width=0.125,
            num_heads=1,
            small=True,
            trainings={
                **dict.fromkeys(CLASSIFICATION_DATA, _TINY),
                **dict.fromkeys(
                    DETECTION_DATA,
                    Training(epochs=1, batch_size=2, images_per_epoch=4, reference_batch_size=8),
                ),
            },
            detector_layers=14,
            detector={"width": 0.125, "num_heads": 2, "pyramid_channels": 8, "head_depth": 1},
            scenes={
                "images": 12,
                "image_size": 48,
                "smallest": 12,
                "largest": 24,
                "most_objects": 2,
                "clutter": 1,
            },
        ),
    )
}


def find_scale(name: str) -> Scale:
    """Return the scale of this name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in SCALES:
        hint = closest(name, list(SCALES))
        raise UnknownNameError(message("paper run", "--scale must be known", repr(name), hint=hint))
    return SCALES[name]
