"""Every figure that the paper prints for an ImageNet network, one row each, with the model that has it.

Parameters and FLOPs of `lookaround.models.costs.model_costs` meet all of them at 224 x 224 pixels: within
`Row.parameters_tolerance` and `Row.flops_tolerance`, which allow for printed rounding and, for Figure 5, for
reading off a plot.

Source:
    Ramachandran et al. 2019, Stand-Alone Self-Attention in Vision Models (arXiv 1906.05909): Tables 1, 3, 4,
    5, 6 and 7, and Figure 5, whose numbers are read off the plot.
"""

from dataclasses import dataclass, field
from typing import Any

IMAGE_SIZE = 224  # the paper does not say; at no other usual size do the FLOPs fit

VALIDATION = "validation"
HELD_OUT = "held-out train"  # 4 % of the training images; never to be mixed with the validation set


@dataclass(frozen=True)
class Row:
    """What the paper prints about one network.

    Attributes:
        table: where it is printed, as in "Table 1".
        label: the row, in the paper's words.
        model: the named model.
        overrides: what `lookaround.create_model` needs besides the name.
        flops_billions: printed FLOPs in 1e9, two per multiply-add.
        parameters_millions: printed parameters in 1e6; None where the table leaves them out.
        top1_percent: printed top-1 accuracy.
        measured_on: VALIDATION, or HELD_OUT, which are not comparable.
    """

    table: str
    label: str
    model: str
    flops_billions: float
    parameters_millions: float | None
    top1_percent: float
    overrides: dict[str, Any] = field(default_factory=dict)
    measured_on: str = VALIDATION

    @property
    def flops_tolerance(self) -> float:
        """How far the count may be from the print, in 1e9 FLOPs."""
        return 0.35 if self.table == "Figure 5" else 0.15

    @property
    def parameters_tolerance(self) -> float:
        """How far the count may be from the print, in 1e6 parameters."""
        return 0.3 if self.table == "Figure 5" else 0.1


_FAMILIES = {
    "baseline": "resnet{}",
    "conv stem + attention": "sasa_resnet{}_convstem",
    "full attention": "sasa_resnet{}",
}
_CONV_STEM = "sasa_resnet50_convstem"

# layers: (FLOPs, parameters, top-1) of each family
_TABLE_1 = {
    26: ((4.7, 13.7, 74.5), (4.5, 10.3, 75.8), (4.7, 10.3, 74.8)),
    38: ((6.5, 19.6, 76.2), (5.7, 14.1, 77.1), (6.0, 14.1, 76.9)),
    50: ((8.2, 25.6, 76.9), (7.0, 18.0, 77.4), (7.2, 18.0, 77.6)),
}
# (attention stages, FLOPs, parameters, top-1)
_TABLE_3 = (
    ((1, 2, 3, 4), 7.0, 18.0, 80.2),
    ((2, 3, 4), 7.3, 18.1, 80.7),
    ((3, 4), 7.5, 18.5, 80.7),
    ((4,), 8.0, 20.8, 80.2),
    ((), 8.2, 25.6, 79.5),
    ((1,), 7.9, 25.5, 79.7),
    ((1, 2), 7.8, 25.0, 79.6),
    ((1, 2, 3), 7.2, 22.7, 79.9),
)
# (window, FLOPs, top-1)
_TABLE_4 = ((3, 6.6, 76.4), (5, 6.7, 77.2), (7, 7.0, 77.4), (9, 7.3, 77.7), (11, 7.7, 77.6))
# (position, FLOPs, parameters, top-1)
_TABLE_5 = (("none", 6.9, 18.0, 77.6), ("absolute", 6.9, 18.0, 78.2), ("relative", 7.0, 18.0, 80.2))
# (label, content, FLOPs, parameters, top-1)
_TABLE_6 = (("q·r", False, 6.1, 16.7, 76.9), ("q·k + q·r", True, 7.0, 18.0, 77.4))
# (label, values, FLOPs, top-1)
_TABLE_7 = (
    ("stand-alone", "plain", 7.1, 76.2),
    ("spatial convolution for values", "convolution", 7.4, 77.2),
    ("spatially-aware values", "spatially_aware", 7.2, 77.6),
)
# width: (top-1, parameters, FLOPs) of each family
_FIGURE_5 = {
    0.5: ((73.8, 7.0, 2.3), (74.3, 5.1, 2.1), (74.1, 5.1, 2.3)),
    0.75: ((75.9, 14.9, 4.8), (76.2, 10.6, 4.2), (76.1, 10.6, 4.4)),
    1.0: ((76.9, 25.6, 8.2), (77.4, 18.0, 7.0), (77.6, 18.0, 7.2)),
    1.25: ((77.8, 39.4, 12.75), (78.3, 27.6, 10.5), (78.1, 27.6, 10.8)),
    1.5: ((78.0, 56.0, 18.1), (78.3, 39.0, 14.9), (77.9, 39.0, 15.1)),
}


def _table_1() -> list[Row]:
    return [
        Row("Table 1", f"ResNet-{layers} {family}", name.format(layers), flops, parameters, top1)
        for layers, figures in _TABLE_1.items()
        for (family, name), (flops, parameters, top1) in zip(_FAMILIES.items(), figures, strict=True)
    ]


def _table_3() -> list[Row]:
    return [
        Row(
            "Table 3",
            f"attention stages {', '.join(map(str, stages)) if stages else 'none'}",
            _CONV_STEM,
            flops,
            parameters,
            top1,
            {"attention_stages": stages},
            HELD_OUT,
        )
        for stages, flops, parameters, top1 in _TABLE_3
    ]


def _tables_4_to_7() -> list[Row]:
    windows = [
        Row("Table 4", f"window {size}", _CONV_STEM, flops, None, top1, {"kernel_size": size})
        for size, flops, top1 in _TABLE_4
    ]
    positions = [
        Row("Table 5", position, _CONV_STEM, flops, parameters, top1, {"position": position}, HELD_OUT)
        for position, flops, parameters, top1 in _TABLE_5
    ]
    contents = [
        Row("Table 6", label, _CONV_STEM, flops, parameters, top1, {"content": content})
        for label, content, flops, parameters, top1 in _TABLE_6
    ]
    stems = [
        Row("Table 7", label, "sasa_resnet50", flops, None, top1, {"stem_values": values})
        for label, values, flops, top1 in _TABLE_7
    ]
    return [*windows, *positions, *contents, *stems]


def _figure_5() -> list[Row]:
    return [
        Row("Figure 5", f"width {width} {family}", name.format(50), flops, parameters, top1, {"width": width})
        for width, figures in _FIGURE_5.items()
        for (family, name), (top1, parameters, flops) in zip(_FAMILIES.items(), figures, strict=True)
    ]


PAPER_ROWS: tuple[Row, ...] = (*_table_1(), *_table_3(), *_tables_4_to_7(), *_figure_5())
