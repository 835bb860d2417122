"""Every figure that the paper prints for a detector, one row each, with the model that has it.

Parameters of `lookaround.models.costs.model_costs` meet all of them at 640 x 640 pixels and 90 classes, and
so do the FLOPs of the rows with convolutional heads.

The text says that attention replaces the convolutions of pyramid and heads. Counted so, the rows with
attention have 20.0 million parameters. The 22.0 million that are printed are those of attention in the heads
alone, and their printed FLOPs lie between what is executed there and the paper's way of counting. Both
readings are rows: `PAPER_DETECTION_ROWS` has the printed one, `TEXT_ROWS` the other.

Source:
    Ramachandran et al. 2019, Stand-Alone Self-Attention in Vision Models (arXiv 1906.05909), Table 2.
"""

from dataclasses import dataclass, field
from typing import Any

IMAGE_SIZE = 640
NUM_CLASSES = 90


@dataclass(frozen=True)
class DetectionRow:
    """What the paper prints about one detector.

    Attributes:
        label: pyramid and heads, then the backbone, in the paper's words.
        model: the named model.
        overrides: what `lookaround.create_model` needs besides the name.
        flops_billions: FLOPs in 1e9, two per multiply-add.
        parameters_millions: parameters in 1e6.
        map_percent: mean average precision, then at overlaps 0.5 and 0.75, then of small, medium and large
            objects; None where it was not measured.
    """

    label: str
    model: str
    flops_billions: float
    parameters_millions: float
    map_percent: tuple[float, float, float, float, float, float] | None
    overrides: dict[str, Any] = field(default_factory=dict)


_CONVOLUTION = {"pyramid": "convolution", "heads": "convolution"}
_PRINTED = {"pyramid": "convolution", "heads": "attention"}
_TEXT = {"pyramid": "attention", "heads": "attention"}
_CONV_STEM, _FULL = "sasa_retinanet_resnet50_convstem", "sasa_retinanet_resnet50"

PAPER_DETECTION_ROWS: tuple[DetectionRow, ...] = (
    DetectionRow(
        "convolution, baseline",
        "retinanet_resnet50",
        182.0,
        33.4,
        (36.5, 54.3, 39.0, 18.3, 40.6, 51.7),
        _CONVOLUTION,
    ),
    DetectionRow(
        "convolution, conv stem + attention",
        _CONV_STEM,
        173.0,
        25.9,
        (36.8, 54.6, 39.3, 18.4, 41.1, 51.7),
        _CONVOLUTION,
    ),
    DetectionRow(
        "convolution, full attention",
        _FULL,
        173.0,
        25.9,
        (36.2, 54.0, 38.7, 17.5, 40.3, 51.7),
        _CONVOLUTION,
    ),
    DetectionRow(
        "attention, conv stem + attention",
        _CONV_STEM,
        111.0,
        22.0,
        (36.6, 54.3, 39.1, 19.0, 40.7, 51.1),
        _PRINTED,
    ),
    DetectionRow(
        "attention, full attention", _FULL, 110.0, 22.0, (36.6, 54.5, 39.2, 18.5, 40.6, 51.6), _PRINTED
    ),
)
# Our counts, with q·r factorised: the paper prints none for this reading.
TEXT_ROWS: tuple[DetectionRow, ...] = (
    DetectionRow("attention, pyramid too, conv stem + attention", _CONV_STEM, 103.0, 20.0, None, _TEXT),
    DetectionRow("attention, pyramid too, full attention", _FULL, 103.0, 20.0, None, _TEXT),
)
