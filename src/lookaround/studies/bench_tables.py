"""The tables of a benchmark: plain values for JSON, Markdown for people."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lookaround.studies.markdown import markdown_table

Value = str | float | int | bool | None
Row = dict[str, Value]


@dataclass(frozen=True)
class Table:
    """Rows of values and how each column is written.

    Attributes:
        title: what the rows are.
        columns: heading to format specification; "" leaves the value as it is.
        rows: values by heading; one that is missing or None is written as a dash.
        remark: a sentence under the table.
    """

    title: str
    columns: Mapping[str, str]
    rows: list[Row] = field(default_factory=list)
    remark: str = ""

    def markdown(self) -> str:
        """The title and the table, aligned so that it reads well in a terminal too."""
        rows = [[_write(row.get(name), form) for name, form in self.columns.items()] for row in self.rows]
        left = [form == "" for form in self.columns.values()]
        table = markdown_table(list(self.columns), rows, left)
        remark = [f"\n{self.remark}"] if self.remark else []
        return "\n".join([f"### {self.title}\n", table, *remark])

    def as_json(self) -> dict[str, object]:
        """The raw values."""
        return {"title": self.title, "columns": list(self.columns), "rows": self.rows, "remark": self.remark}


@dataclass(frozen=True)
class Panel:
    """One picture of a chart: bars grouped by label, or lines over numbers.

    Attributes:
        title: what is shown.
        unit: what the vertical axis counts.
        series: for every series, its value at each label (bars) or number (lines).
        limits: horizontal lines at the targets, by what they are called.
        lines: whether to draw lines, on logarithmic axes, instead of bars.
        log: whether the vertical axis of bars is logarithmic.
    """

    title: str
    unit: str
    series: dict[str, dict[str, float]]
    limits: dict[str, float] = field(default_factory=dict)
    lines: bool = False
    log: bool = False


def verdict(value: float | None, *, at_least: float | None = None, at_most: float | None = None) -> Row:
    """The two columns `target` and `met`, both None where there is no target or no value."""
    if value is None or (at_least is None and at_most is None):
        return {"target": None, "met": None}
    if at_least is not None:
        return {"target": f">= {at_least:g}", "met": value >= at_least}
    assert at_most is not None
    return {"target": f"<= {at_most:g}", "met": value <= at_most}


def _write(value: Value, form: str) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return format(value, form) if form != "" and not isinstance(value, str) else str(value)
