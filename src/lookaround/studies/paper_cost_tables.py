"""What the paper's networks cost, as a table, and in words why some counts are not the printed ones."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lookaround.studies.bench_tables import Row, Table
from lookaround.studies.paper_costs import CostRow
from lookaround.training.files import write_json, write_text

# Deviations above these are explained, in millions of parameters and in 1e9 FLOPs.
LARGE_PARAMETERS, LARGE_FLOPS = 0.1, 0.15
WHOLE = 0.5  # what rounding to whole billions can hide
COLUMNS = {
    "where": "",
    "network": "",
    "M printed": ".1f",
    "M": ".3f",
    "differs by": "+z.2f",
    "GFLOPs printed": "g",
    "as the paper counts": ".2f",
    "differ by": "+z.2f",
    "as executed": ".2f",
    "note": "",
}
READING = (
    "M: trainable parameters in millions. GFLOPs: of one image, two for each multiply-add; of 224 x 224 "
    "pixels and 1000 classes, in Table 2 of 640 x 640 pixels and 90 classes, without what is done with the "
    "predictions. As the paper counts: q·r in full and three for each batch norm with its ReLU. As executed: "
    "q·r factorised into rows and columns, the products of the attention stem folded. Differences are those "
    f"to the paper's count; above {LARGE_PARAMETERS} M or {LARGE_FLOPS} G a note explains them. The figures "
    "printed for Figure 5 are read off the plot, to about 0.3 M and 0.1 G."
)


def explain(row: CostRow, rows: Sequence[CostRow]) -> str:
    """Say why our count is not the printed figure; "" where it is, or nearly.

    Args:
        row: a row of any table.
        rows: all that were counted; a detector's backbone is looked for there.
    """
    parameters, flops = row.parameters_deviation, row.flops_deviation
    large = parameters is not None and abs(parameters) > LARGE_PARAMETERS
    if not large and abs(flops) <= LARGE_FLOPS:
        return ""
    if row.printed.table == "Figure 5":
        return _explain_figure(row, large)
    if row.printed.table == "Table 2":
        return _explain_detector(row, rows)
    return "Not explained."


def _explain_figure(row: CostRow, large_parameters: bool) -> str:
    words = ["The parameters are within what can be read off the plot."] if large_parameters else []
    if abs(row.flops_deviation) > LARGE_FLOPS:
        assert row.unscaled_stem_flops is not None
        flops = row.unscaled_stem_flops / 1e9
        off = flops - row.printed.flops_billions
        words.append(
            f"With a stem that keeps its 64 channels at every width it would be {flops:.2f} G ({off:+.2f}): "
            "the paper seems to scale all but the stem."
        )
    return " ".join(words)


def _explain_detector(row: CostRow, rows: Sequence[CostRow]) -> str:
    if row.printed.from_text:
        return (
            "Attention in the pyramid and in the heads, as the text says. The printed figures are not those "
            "of this network; they fit attention in the heads alone, see the rows above."
        )
    if row.printed.overrides["heads"] == "attention":
        return _explain_attention_heads(row, rows)
    off = abs(row.flops_deviation)
    if off <= WHOLE:
        return "Rounding: the paper prints whole billions."
    return (
        f"The paper prints whole billions, which hides up to {WHOLE} G; the other {off - WHOLE:.2f} G of "
        f"{row.printed.flops_billions:.0f} are not explained."
    )


def _explain_attention_heads(row: CostRow, rows: Sequence[CostRow]) -> str:
    words = (
        f"The printed {row.printed.flops_billions:.0f} G lie between the two ways of counting, "
        f"{row.costs.executed_flops / 1e9:.1f} as executed and {row.costs.paper_flops / 1e9:.1f} with q·r in "
        "full."
    )
    same = [
        other.costs
        for other in rows
        if other.printed.model == row.printed.model and other.printed.overrides.get("heads") == "convolution"
    ]
    if not same:
        return words
    saved = same[0].executed_flops - row.costs.executed_flops
    mixed = (same[0].paper_flops - saved) / 1e9
    fits = "which fits" if round(mixed) == row.printed.flops_billions else "which does not fit either"
    return f"{words} With q·r in full in the backbone and factorised in the heads it is {mixed:.1f}, {fits}."


def costs_table(rows: Sequence[CostRow]) -> str:
    """The rows as Markdown, and under them how to read them and the notes."""
    table = Table("What the paper's networks cost", COLUMNS, remark=READING)
    notes: list[str] = []
    for row in rows:
        words = explain(row, rows)
        if words:
            notes.append(f"{len(notes) + 1}. {row.printed.table}, {row.printed.label}: {words}")
        table.rows.append(_cells(row, str(len(notes)) if words else ""))
    parts = [table.markdown(), *([_summary(rows)] if _summary(rows) else []), "\n".join(notes)]
    return "\n\n".join(part for part in parts if part)


def _cells(row: CostRow, note: str) -> Row:
    printed, costs = row.printed, row.costs
    whole = printed.table == "Table 2"
    values = (
        printed.table,
        printed.label,
        printed.parameters_millions,
        costs.parameters / 1e6,
        row.parameters_deviation,
        f"{printed.flops_billions:.0f}" if whole else str(printed.flops_billions),
        costs.paper_flops / 1e9,
        row.flops_deviation,
        costs.executed_flops / 1e9,
        note,
    )
    return dict(zip(COLUMNS, values, strict=True))


def _summary(rows: Sequence[CostRow]) -> str:
    """Say how near all rows of Figure 5 are with either stem."""
    figure = [(row, row.unscaled_stem_flops) for row in rows if row.unscaled_stem_flops is not None]
    if not figure:
        return ""
    scaled = max(abs(row.flops_deviation) for row, _ in figure)
    kept = max(abs(flops / 1e9 - row.printed.flops_billions) for row, flops in figure)
    return (
        f"Figure 5, all rows: within {scaled:.2f} G with every layer scaled, as here; within {kept:.2f} G if "
        "the stem keeps its 64 channels."
    )


def write_costs(rows: Sequence[CostRow], json_file: Path | None, markdown_file: Path | None) -> None:
    """Write what was asked for: the rows as JSON, the table as Markdown."""
    if json_file is not None:
        write_json(json_file, {"remark": READING, "rows": [_as_json(row, rows) for row in rows]})
    if markdown_file is not None:
        write_text(markdown_file, f"{costs_table(rows)}\n")


def _as_json(row: CostRow, rows: Sequence[CostRow]) -> dict[str, Any]:
    return {
        **dataclasses.asdict(row),
        "parameters_deviation_millions": row.parameters_deviation,
        "flops_deviation_billions": row.flops_deviation,
        "note": explain(row, rows),
    }
