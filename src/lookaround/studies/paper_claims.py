"""What the paper claims, as differences between rows of its tables; and what is asked beyond it, likewise."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from lookaround.models.paper_rows import PAPER_ROWS

Place = tuple[str, str]  # an experiment, and the label of a row of it


@dataclass(frozen=True)
class Claim:
    """A difference in accuracy that should be above zero.

    Attributes:
        text: what is claimed, a sentence without its end.
        weights: what each row's accuracy is multiplied by in the difference; weights of each split of the
            images add up to zero, so that figures of one are never held against figures of another.
        of_paper: whether the paper claims it.
    """

    text: str
    weights: dict[Place, float] = field(default_factory=dict)
    of_paper: bool = True

    @property
    def experiments(self) -> tuple[str, ...]:
        """Whose rows it is about."""
        return tuple(dict.fromkeys(experiment for experiment, _ in self.weights))


def _mean(experiment: str, labels: Sequence[str]) -> dict[Place, float]:
    return {(experiment, label): 1 / len(labels) for label in labels}


def _above(experiment: str, more: Sequence[str], less: Sequence[str]) -> dict[Place, float]:
    """Mean of some rows less the mean of others."""
    negative = {place: -weight for place, weight in _mean(experiment, less).items()}
    return _mean(experiment, more) | negative


def _rows_of(experiment: str, family: str) -> list[str]:
    table = {"table1": "Table 1", "figure5": "Figure 5"}[experiment]
    return [row.label for row in PAPER_ROWS if row.table == table and row.label.endswith(f" {family}")]


def _family(experiment: str, family: str) -> dict[Place, float]:
    return _above(experiment, _rows_of(experiment, family), _rows_of(experiment, "baseline"))


def _stages(*stages: str) -> list[str]:
    return [f"attention stages {some}" for some in stages]


_STEM, _FULL = "conv stem + attention", "full attention"
_LATE, _EARLY = _stages("4", "3, 4", "2, 3, 4"), _stages("1", "1, 2", "1, 2, 3")
_WINDOWS = [f"window {size}" for size in (5, 7, 9, 11)]
_BORDERS = [f"window {size}" for size in (3, 7, 11)] + [_FULL]

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "attention behind a convolutional stem is more accurate than convolution, mean of three depths",
        _family("table1", _STEM),
    ),
    Claim("full attention is more accurate than convolution, mean of three depths", _family("table1", _FULL)),
    Claim(
        "attention behind a convolutional stem is more accurate than convolution, mean of five widths",
        _family("figure5", _STEM),
    ),
    Claim("full attention is more accurate than convolution, mean of five widths", _family("figure5", _FULL)),
    Claim(
        "convolution early and attention late is better than the other way round, mean of three pairs",
        _above("table3", _LATE, _EARLY),
    ),
    Claim(
        "windows of 5 to 11 are better than windows of 3, mean of four",
        _above("table4", _WINDOWS, ["window 3"]),
    ),
    Claim("relative positions are better than absolute ones", _above("table5", ["relative"], ["absolute"])),
    Claim("relative positions are better than none", _above("table5", ["relative"], ["none"])),
    Claim("the content of the keys helps", _above("table6", ["q·k + q·r"], ["q·r"])),
    Claim(
        "leaving out positions costs more than leaving out the content of the keys",
        _above("table5", ["relative"], ["none"]) | _above("table6", ["q·r"], ["q·k + q·r"]),
    ),
    Claim(
        "spatially-aware values in the stem are better than ordinary ones",
        _above("table7", ["spatially-aware values"], ["stand-alone"]),
    ),
    Claim(
        "spatially-aware values in the stem are better than a convolution for the values",
        _above("table7", ["spatially-aware values"], ["spatial convolution for values"]),
    ),
    Claim(
        "a border without pixels is better than a border of zeros, mean of four networks",
        _above("border", [f"{name}, mask" for name in _BORDERS], [f"{name}, zeros" for name in _BORDERS]),
        of_paper=False,
    ),
)
