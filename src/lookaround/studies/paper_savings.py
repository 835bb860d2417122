"""How many parameters and FLOPs attention saves against convolution: counted, so nothing needs a test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lookaround.studies.paper_comparisons import HOLDS, REVERSED, WAITING

TABLE = "table1"
PARTLY = "partly"
# what: (key of the printed figures, key of ours)
_QUANTITIES = {
    "parameters": ("parameters_millions", "parameters"),
    "FLOPs, as the paper counts": ("flops_billions", "paper_flops"),
    "FLOPs, as executed": (None, "executed_flops"),
}


@dataclass(frozen=True)
class Saving:
    """What attention changes at every depth.

    Attributes:
        text: network and quantity.
        printed_percent: change against convolution by the printed figures, a depth each; None where none is.
        percent: by ours.
        verdict: HOLDS if ours are fewer at every depth, REVERSED if more, PARTLY, or WAITING.
    """

    text: str
    printed_percent: tuple[float | None, ...]
    percent: tuple[float | None, ...]
    verdict: str


def find_savings(experiments: Mapping[str, Mapping[str, Any]]) -> list[Saving]:
    """Hold the networks of Table 1 against the baseline of their depth; nothing if it is not among them."""
    if TABLE not in experiments:
        return []
    rows = experiments[TABLE]["rows"]
    by_label = {row["label"]: row for row in rows}
    pairs: dict[str, list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    for row in rows:
        if row["reference"] != row["label"]:
            family = row["label"].removeprefix(f"{row['group']} ")
            pairs.setdefault(family, []).append((row, by_label[row["reference"]]))
    return [
        _saving(f"{family}: fewer {quantity}", some, *keys)
        for family, some in pairs.items()
        for quantity, keys in _QUANTITIES.items()
    ]


def _saving(
    text: str, pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], printed: str | None, ours: str
) -> Saving:
    theirs = tuple(
        None if printed is None else _change(row["paper"][printed], reference["paper"][printed])
        for row, reference in pairs
    )
    changes = tuple(_change(row[ours], reference[ours]) for row, reference in pairs)
    return Saving(text, theirs, changes, _verdict(changes))


def _change(ours: int | float | None, reference: int | float | None) -> float | None:
    return None if ours is None or reference is None else round(100 * (ours / reference - 1), 2)


def _verdict(changes: Sequence[float | None]) -> str:
    known = [change for change in changes if change is not None]
    if not known:
        return WAITING
    fewer = sum(change < 0 for change in known)
    return HOLDS if fewer == len(known) else PARTLY if fewer else REVERSED
