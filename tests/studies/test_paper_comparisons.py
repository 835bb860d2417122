"""Differences between rows, tested over the seeds."""

import math
import statistics

import pytest

from lookaround.studies.paper_claims import CLAIMS, Claim
from lookaround.studies.paper_comparisons import (
    SAME,
    compare,
    compare_claims,
    compare_rows,
    judge,
    rank,
)
from lookaround.studies.paper_plan import EXPERIMENTS
from lookaround.studies.paper_savings import find_savings


def row(label, percent, *figures, reference="a", name=None, **more):
    """One row of results.json, as far as comparisons read it."""
    runs = [
        {"seed": seed, "run": f"{label if name is None else name}-{seed}", "figure": figure}
        for seed, figure in enumerate(figures)
    ]
    known = [figure for figure in figures if figure is not None]
    mean = statistics.fmean(known) if known else None
    paper = {"percent": percent, "parameters_millions": None, "flops_billions": None}
    return {"label": label, "reference": reference, "paper": paper, "runs": runs, "mean": mean} | more


def experiments(*rows):
    return {"some": {"rows": list(rows)}}


def test_a_difference_is_taken_seed_by_seed():
    """By hand: differences 1, 2, 3; mean 2, deviation 1, t = 2 * sqrt(3), two degrees of freedom."""
    a, b = row("a", 70.0, 0.5, 0.6, 0.7), row("b", 71.5, 0.51, 0.62, 0.73)
    (found,) = compare_rows("some", experiments(a, b))
    assert found.text == "b against a"
    assert found.printed_points == 1.5
    assert found.points == pytest.approx((1.0, 2.0, 3.0))
    assert found.mean == pytest.approx(2.0)
    t = 2 * math.sqrt(3)
    assert found.p == pytest.approx(1 - t / math.sqrt(t**2 + 2))  # Student's distribution, two degrees
    half = 4.302653 / math.sqrt(3)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half))
    assert found.verdict == "holds, not sure"


@pytest.mark.parametrize(
    ("printed", "points", "p", "verdict"),
    [
        (1.0, [1.0, 1.1, 0.9], 0.01, "holds"),
        (-1.0, [1.0, 1.1, 0.9], 0.01, "reversed"),
        (-1.0, [-1.0, -2.0, -0.1], 0.2, "holds, not sure"),
        (-1.0, [1.0, 2.0, 0.1], 0.2, "reversed, not sure"),
        (1.0, [1.0, -1.1, 0.3], 0.8, "undecided"),
        (1.0, [0.0, 0.0, 0.0], None, "undecided"),
        (0.0, [1.0, 1.1, 0.9], 0.01, "no order in the paper"),
        (None, [1.0, 1.1, 0.9], 0.01, "differs"),
        (None, [1.0, 2.0, 0.1], 0.2, "differs, not sure"),
        (1.0, [1.0], None, "not measured yet"),
        (1.0, [], None, "not measured yet"),
    ],
)
def test_verdicts(printed, points, p, verdict):
    assert judge(printed, points, p) == verdict


def test_seeds_that_are_not_measured_in_both_rows_do_not_count():
    a, b = row("a", 70.0, 0.5, None, 0.7), row("b", None, 0.51, 0.62, None)
    (found,) = compare_rows("some", experiments(a, b))
    assert found.points == pytest.approx((1.0,))
    assert (found.printed_points, found.low, found.p) == (None, None, None)
    assert found.verdict == "not measured yet"


def test_seeds_that_differ_in_nothing_give_no_p():
    a, b, c = row("a", 70.0, 0.5, 0.6), row("b", 71.0, 0.5, 0.6), row("c", 71.0, 0.51, 0.61)
    none, same = compare_rows("some", experiments(a, b, c))
    assert (none.mean, none.p, none.verdict) == (0.0, None, "undecided")
    assert (same.mean, same.p, same.verdict) == (pytest.approx(1.0), None, "holds, not sure")


def test_a_network_is_not_compared_with_itself():
    a, b = row("a", 70.0, 0.5, 0.6), row("b", 71.0, 0.5, 0.6, name="a")
    (found,) = compare_rows("some", experiments(a, b))
    assert (found.points, found.verdict) == ((), SAME)


def test_a_claim_weighs_several_rows():
    rows = [row("a", 70.0, 0.5, 0.6), row("b", 71.0, 0.6, 0.7), row("c", 70.9, 0.7, 0.6)]
    weights = {("some", "a"): -1.0, ("some", "b"): 0.5, ("some", "c"): 0.5}
    found = compare("b and c are better", weights, experiments(*rows))
    assert found.printed_points == pytest.approx(0.95)
    assert found.points == pytest.approx((15.0, 5.0))


def test_claims_without_their_tables_are_left_out():
    claim = Claim("b is better", {("some", "a"): -1.0, ("some", "b"): 1.0})
    other = Claim("c is better", {("other", "c"): 1.0})
    made_up = experiments(row("a", 70.0, 0.5), row("b", 71.0, 0.6))
    assert [one.text for one in compare_claims(made_up, [claim, other])] == ["b is better"]
    assert compare_claims(made_up) == []


def test_claims_are_about_rows_that_are_there_and_never_mix_the_images():
    rows = {(name, row.label): row for name, one in EXPERIMENTS.items() for row in one.rows}
    assert len({claim.text for claim in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        totals = dict.fromkeys({rows[place].measured_on for place in claim.weights}, 0.0)
        for place, weight in claim.weights.items():
            totals[rows[place].measured_on] += weight
        assert list(totals.values()) == pytest.approx([0.0] * len(totals))
        printed = [rows[place].paper_percent for place in claim.weights]
        assert (None not in printed) == claim.of_paper
        if claim.of_paper:
            assert sum(rows[p].paper_percent * w for p, w in claim.weights.items()) > 0, "the paper denies it"


def test_the_order_of_rows_is_compared_with_the_papers():
    rows = [
        row("a", 70.0, 0.5, 0.6),
        row("b", 71.0, 0.6, 0.55),
        row("c", 72.0, 0.7, None),
        row("d", None, 0.1),
    ]
    found = rank(rows)
    assert (found.rows, found.tau) == (3, pytest.approx(1.0))
    assert found.p == pytest.approx(1 / 3)
    assert found.by_seed == pytest.approx((1.0,))  # the second seed has not all rows
    assert rank(rows[:2]) is None, "of two rows there is no more to say than of their difference"
    assert rank([row("a", 70.0, 0.5), row("b", 70.0, 0.6), row("c", 70.0, 0.7)]) is None


def test_savings_are_counted_at_every_depth():
    def size(depth, family, parameters, flops, printed):
        one = row(f"{depth} {family}", 70.0, reference=f"{depth} baseline", group=depth)
        one["paper"] |= {"parameters_millions": printed, "flops_billions": 5.0}
        return one | {"parameters": parameters, "paper_flops": flops, "executed_flops": flops}

    rows = [
        size("26", "baseline", 100, 10, 20.0),
        size("26", "attention", 80, 12, 15.0),
        size("38", "baseline", 200, 20, 40.0),
        size("38", "attention", 150, 10, 30.0),
    ]
    parameters, flops, executed = find_savings({"table1": {"rows": rows}})
    assert parameters.text == "attention: fewer parameters"
    assert (parameters.printed_percent, parameters.percent) == ((-25.0, -25.0), (-20.0, -25.0))
    assert parameters.verdict == "holds"
    assert (flops.printed_percent, flops.percent, flops.verdict) == ((0.0, 0.0), (20.0, -50.0), "partly")
    assert executed.printed_percent == (None, None)
    rows[3]["executed_flops"] = None
    assert find_savings({"table1": {"rows": rows}})[2].verdict == "reversed"
    rows[1]["executed_flops"] = None
    assert find_savings({"table1": {"rows": rows}})[2].verdict == "not measured yet"
    assert find_savings({"table3": {"rows": rows}}) == []
