"""The paper's networks: printed figures beside ours, and what is said where they differ."""

import pytest

from lookaround.errors import UnknownNameError
from lookaround.models import Costs
from lookaround.models.paper_detection_rows import PAPER_DETECTION_ROWS, TEXT_ROWS
from lookaround.models.paper_rows import PAPER_ROWS
from lookaround.studies.paper_cost_tables import (
    LARGE_FLOPS,
    LARGE_PARAMETERS,
    costs_table,
    explain,
)
from lookaround.studies.paper_costs import TABLES, CostRow, Printed, choose_tables, count_rows, printed_rows


@pytest.fixture(scope="module")
def rows() -> list[CostRow]:
    """All of them; the slowest thing here, so only once."""
    return count_rows(printed_rows())


def of_table(rows: list[CostRow], table: str) -> list[CostRow]:
    return [row for row in rows if row.printed.table == table]


def made_up(table: str, parameters: int = 10_000_000, flops: int = 1_000_000_000) -> CostRow:
    printed = Printed(table, "a row", "resnet26", {}, 224, 10.0, 1.0)
    return CostRow(printed, Costs(parameters, flops, flops))


def test_every_printed_row_is_there_once(rows):
    assert len(rows) == len(PAPER_ROWS) + len(PAPER_DETECTION_ROWS) + len(TEXT_ROWS)
    assert [table for table in TABLES if not of_table(rows, table)] == []
    names = [(row.printed.table, row.printed.label) for row in rows]
    assert len(set(names)) == len(names)
    tables = [row.printed.table for row in rows]
    assert tables == sorted(tables, key=TABLES.index)


def test_whatever_deviates_is_explained_and_nothing_else(rows):
    for row in rows:
        off = row.parameters_deviation
        large = (off is not None and abs(off) > LARGE_PARAMETERS) or abs(row.flops_deviation) > LARGE_FLOPS
        assert (explain(row, rows) != "") == large
        assert not large or row.printed.table in ("Table 2", "Figure 5")
    assert "Not explained." not in costs_table(rows)


def test_notes_are_numbered_in_table_and_text(rows):
    lines = costs_table(rows).splitlines()
    line = next(line for line in lines if line.startswith("|") and "width 0.5 full attention" in line)
    number = line.split("|")[-2].strip()
    assert any(text.startswith(f"{number}. Figure 5, width 0.5 full attention: With a") for text in lines)
    cells = next(line for line in lines if "convolution, baseline" in line).split("|")
    assert [cell.strip() for cell in cells[3:7]] == ["33.4", "33.417", "+0.02", "182"]


def test_a_deviation_without_an_explanation_says_so():
    row = made_up("Table 1", parameters=10_200_000)
    assert explain(row, [row]) == "Not explained."
    assert explain(made_up("Table 1", parameters=10_050_000), []) == ""
    assert explain(made_up("Table 1", flops=1_140_000_000), []) == ""


def test_with_a_stem_of_its_own_figure_5_is_met_as_near_as_it_can_be_read(rows):
    """0.1 G for the plot and 0.05 for the print that the plot is of."""
    figure = of_table(rows, "Figure 5")
    assert len(figure) == 15
    for row in figure:
        flops = row.unscaled_stem_flops / 1e9
        assert flops == pytest.approx(row.printed.flops_billions, abs=0.115)
        if row.printed.overrides["width"] == 1:
            assert row.unscaled_stem_flops == row.costs.paper_flops
    assert max(abs(row.flops_deviation) for row in figure) > 0.25
    small = next(row for row in figure if row.printed.label == "width 0.5 full attention")
    assert "With a stem that keeps its 64 channels" in explain(small, rows)
    assert "within 0.29 G with every layer scaled" in costs_table(figure)


def test_the_stem_at_half_width_adds_what_can_be_counted_by_hand(rows):
    """The convolution, its norm, and the first block's two layers that read it."""
    row = next(row for row in rows if row.printed.label == "width 0.5 baseline")
    stem = 2 * 112**2 * 32 * 3 * 49 + 3 * 112**2 * 32
    first = 2 * 56**2 * 32 * (32 + 128)
    assert row.unscaled_stem_flops - row.costs.paper_flops == stem + first


def test_parameters_read_off_the_plot_are_within_what_can_be_read(rows):
    assert max(abs(row.parameters_deviation) for row in of_table(rows, "Figure 5")) < 0.3
    row = next(row for row in rows if row.printed.label == "width 1.25 baseline")
    assert explain(row, rows) == "The parameters are within what can be read off the plot."


def test_both_readings_of_table_2_stand_beside_the_same_printed_row(rows):
    detectors = of_table(rows, "Table 2")
    text = [row for row in detectors if row.printed.from_text]
    printed = [row for row in detectors if row.printed.overrides.get("heads") == "attention"][:2]
    assert [row.printed.parameters_millions for row in text] == [22.0, 22.0]
    assert [row.printed.flops_billions for row in text] == [r.printed.flops_billions for r in printed]
    for row in text:
        assert row.parameters_deviation == pytest.approx(-2.0, abs=0.05)
        assert "they fit attention in the heads alone" in explain(row, rows)


def test_table_2_says_what_rounding_hides_and_what_it_does_not(rows):
    said = {row.printed.label: explain(row, rows) for row in of_table(rows, "Table 2")}
    assert said["convolution, conv stem + attention"].startswith("Rounding")
    assert "the other 0.16 G of 182 are not explained" in said["convolution, baseline"]
    between = said["attention, conv stem + attention"]
    assert "The printed 111 G lie between" in between
    assert between.endswith("it is 110.7, which fits.")
    assert said["attention, full attention"].endswith("it is 111.6, which does not fit either.")


def test_attention_in_heads_can_be_explained_without_its_neighbours(rows):
    row = next(row for row in rows if row.printed.label == "attention, full attention")
    assert explain(row, [row]).endswith("and 113.5 with q·r in full.")


def test_each_network_is_counted_once(monkeypatch):
    counted = []

    def count(model, size):
        counted.append(size)
        return Costs(1, 2, 3)

    monkeypatch.setattr("lookaround.studies.paper_costs.model_costs", count)
    told = []
    # The last row of Table 5 and that of Table 6 with content are the same network.
    found = count_rows(printed_rows(["Table 5", "Table 6"]), lambda *step: told.append(step))
    assert len(found) == 5
    assert len(counted) == 4
    assert told[0] == ("counting", "Table 5, none", 5)


def test_tables_are_found_by_name_in_the_papers_order():
    assert choose_tables([]) == list(TABLES)
    assert choose_tables(["figure5", "table2"]) == ["Table 2", "Figure 5"]


@pytest.mark.parametrize("name", ["table8", "Table 1", ""])
def test_a_table_that_the_paper_has_not_is_named(name):
    with pytest.raises(UnknownNameError, match="paper costs: tables must be ones of the paper; got"):
        choose_tables(["table1", name])
