"""Every network that the paper prints figures of, with the parameters and FLOPs that are counted here."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lookaround.errors import UnknownNameError, closest, message
from lookaround.models import Costs, ResNet, create_model, model_costs
from lookaround.models.paper_detection_rows import IMAGE_SIZE as DETECTION_IMAGE_SIZE
from lookaround.models.paper_detection_rows import PAPER_DETECTION_ROWS, TEXT_ROWS, DetectionRow
from lookaround.models.paper_rows import IMAGE_SIZE, PAPER_ROWS, Row
from lookaround.models.variants import VARIANTS

TABLES = ("Table 1", "Table 2", "Table 3", "Table 4", "Table 5", "Table 6", "Table 7", "Figure 5")
Tick = Callable[[str, str, int], None]


@dataclass(frozen=True)
class Printed:
    """A row of the paper and the network that stands for it.

    Attributes:
        table: one of TABLES.
        label: the row, in the paper's words.
        model: the named model.
        overrides: what `create_model` needs besides the name.
        image_size: side of the images in pixels.
        parameters_millions: as printed; None where the table leaves them out.
        flops_billions: as printed, two for each multiply-add.
        from_text: whether attention is in the pyramid too, as the text of the paper says; the same printed
            row is there a second time, with the network that its figures fit.
    """

    table: str
    label: str
    model: str
    overrides: dict[str, Any]
    image_size: int
    parameters_millions: float | None
    flops_billions: float
    from_text: bool = False


@dataclass(frozen=True)
class CostRow:
    """A printed row beside what is counted.

    Attributes:
        printed: the row of the paper.
        costs: parameters and FLOPs of our network.
        unscaled_stem_flops: of Figure 5, FLOPs as the paper counts them if the stem kept its 64 channels at
            every width; None elsewhere.
    """

    printed: Printed
    costs: Costs
    unscaled_stem_flops: int | None = None

    @property
    def parameters_deviation(self) -> float | None:
        """Ours less the printed, in millions."""
        printed = self.printed.parameters_millions
        return None if printed is None else self.costs.parameters / 1e6 - printed

    @property
    def flops_deviation(self) -> float:
        """Ours as the paper counts less the printed, in 1e9 FLOPs."""
        return self.costs.paper_flops / 1e9 - self.printed.flops_billions


def choose_tables(names: Sequence[str]) -> list[str]:
    """Find tables by the names that a command line has for them; all of them if none is named.

    Raises:
        UnknownNameError: the paper has no such table.

    Example:
        >>> choose_tables(["figure5", "table1"])
        ['Table 1', 'Figure 5']
    """
    known = {table.lower().replace(" ", ""): table for table in TABLES}
    for name in names:
        if name not in known:
            must = "tables must be ones of the paper"
            raise UnknownNameError(message("paper costs", must, repr(name), hint=closest(name, list(known))))
    return [table for name, table in known.items() if not names or name in names]


def printed_rows(tables: Sequence[str] = TABLES) -> list[Printed]:
    """The rows of the tables, in the paper's order; those of Table 2 with attention in both readings."""
    rows = [_classifier(row) for row in PAPER_ROWS] + _detectors()
    return [row for table in TABLES if table in tables for row in rows if row.table == table]


def _classifier(row: Row) -> Printed:
    figures = (row.parameters_millions, row.flops_billions)
    return Printed(row.table, row.label, row.model, row.overrides, IMAGE_SIZE, *figures)


def _detectors() -> list[Printed]:
    rows = [_detector(row, row) for row in PAPER_DETECTION_ROWS]
    printed = {row.model: row for row in PAPER_DETECTION_ROWS if row.overrides["heads"] == "attention"}
    return rows + [_detector(row, printed[row.model], from_text=True) for row in TEXT_ROWS]


def _detector(row: DetectionRow, printed: DetectionRow, from_text: bool = False) -> Printed:
    figures = (printed.parameters_millions, printed.flops_billions)
    what = ("Table 2", row.label, row.model, row.overrides, DETECTION_IMAGE_SIZE)
    return Printed(*what, *figures, from_text)


def count_rows(rows: Sequence[Printed], tick: Tick = lambda group, name, steps: None) -> list[CostRow]:
    """Count what each row costs.

    Nothing is computed and no weights are made. A network that stands in several tables is counted once.

    Args:
        rows: of `printed_rows`.
        tick: is told of each row before it is counted: what is done, the row, how many rows there are.
    """
    counted: dict[tuple[Any, int], Costs] = {}
    found = []
    for row in rows:
        tick("counting", f"{row.table}, {row.label}", len(rows))
        network = dataclasses.replace(VARIANTS[row.model], **(row.overrides | {"name": "any"}))
        key = (network, row.image_size)
        if key not in counted:
            counted[key] = model_costs(_outline(row.model, row.overrides), row.image_size)
        found.append(CostRow(row, counted[key], _unscaled_stem_flops(row, counted[key])))
    return found


def _outline(name: str, overrides: dict[str, Any]) -> Any:
    """Make a network without memory for its weights."""
    with torch.device("meta"):
        return create_model(name, **overrides)


def _unscaled_stem_flops(row: Printed, costs: Costs) -> int | None:
    """Count a network of Figure 5 once more, with the stem of the network of width 1."""
    if row.table != "Figure 5":
        return None
    if row.overrides["width"] == 1:
        return costs.paper_flops
    model, unscaled = _outline(row.model, row.overrides), _unscaled(row.model)
    assert isinstance(model, ResNet)
    model.stem = unscaled.stem
    first = model.layer1[0]
    assert isinstance(first.downsample, nn.Sequential)
    channels = unscaled.layer1[0].conv1.in_channels
    first.conv1 = _with_inputs(first.conv1, channels)
    first.downsample[0] = _with_inputs(first.downsample[0], channels)
    return model_costs(model, row.image_size).paper_flops


@functools.cache
def _unscaled(name: str) -> Any:
    return _outline(name, {})


def _with_inputs(convolution: Any, channels: int) -> Any:
    with torch.device("meta"):
        return type(convolution)(channels, convolution.out_channels)
