"""The parts of the benchmark: turns, statistics, tables, verdicts, the check before the race."""

import pytest
import torch

from lookaround.errors import BackendError
from lookaround.studies.agreement import check_agreement
from lookaround.studies.bench_context import MATRIX_PRODUCT, Bench, Race, Settings
from lookaround.studies.bench_scaling import slope
from lookaround.studies.bench_tables import Table, verdict
from lookaround.studies.timing import HostClock, Timing, time_interleaved


def timing(*samples: float) -> Timing:
    return Timing(samples, calls=1)


def test_contestants_take_turns() -> None:
    order: list[str] = []
    work = {name: (lambda name=name: order.append(name)) for name in "ABC"}
    ticks: list[str] = []
    timings = time_interleaved(work, HostClock(sample_seconds=0.0), repeats=3, tick=ticks.append)
    warm_up = list("AABBCC")
    assert order == warm_up + list("ABC") * 3
    assert ticks == list("ABC") * 4
    assert {name: len(found.samples) for name, found in timings.items()} == {"A": 3, "B": 3, "C": 3}


def test_short_work_is_repeated_within_a_sample() -> None:
    clock = HostClock(sample_seconds=0.002)
    assert clock.calls(lambda: None) > 10
    assert clock.calls(lambda: torch.ones(2_000_000)) < clock.calls(lambda: None)


def test_summary_has_median_and_spread() -> None:
    summary = timing(5.0, 1.0, 3.0, 2.0, 4.0).summary()
    assert summary["median_seconds"] == 3.0
    assert (summary["minimum_seconds"], summary["maximum_seconds"]) == (1.0, 5.0)
    assert (summary["lower_quartile_seconds"], summary["upper_quartile_seconds"]) == (2.0, 4.0)
    assert timing(7.0).quartiles_seconds == (7.0, 7.0)


def test_race_gives_ratios_and_shares() -> None:
    race = Race({MATRIX_PRODUCT: timing(1.0), "mine": timing(2.0)}, {MATRIX_PRODUCT: 100, "mine": 50})
    assert race.ratio("mine", MATRIX_PRODUCT) == 2.0
    assert race.rate("mine") == 25.0
    assert race.share("mine") == 0.25


def test_bench_writes_down_what_it_measures() -> None:
    bench = Bench(Settings(quick=True, repeats=3))
    race = bench.measure("sums", {"sum": lambda: sum(range(1000))}, {"sum": 1000})
    product, row = bench.measurements
    assert (product["contestant"], product["share_of_matrix_product"]) == (MATRIX_PRODUCT, 1.0)
    assert (row["group"], row["contestant"], row["repeats"], row["flops"]) == ("sums", "sum", 3, 1000)
    assert row["share_of_matrix_product"] == race.share("sum")


def test_targets_are_about_full_sizes_in_float32_on_a_processor() -> None:
    assert Bench(Settings()).promised
    assert not Bench(Settings(quick=True)).promised
    assert not Bench(Settings(dtype="bfloat16")).promised


@pytest.mark.parametrize(
    ("limits", "row"),
    [
        ({"at_least": 0.5}, {"target": ">= 0.5", "met": True}),
        ({"at_most": 0.5}, {"target": "<= 0.5", "met": False}),
        ({}, {"target": None, "met": None}),
    ],
)
def test_verdict(limits: dict[str, float], row: dict[str, object]) -> None:
    assert verdict(0.75, **limits) == row
    assert verdict(None, at_least=1.0) == {"target": None, "met": None}


def test_table_is_aligned() -> None:
    table = Table("Speed", {"name": "", "share": ".0%", "met": ""}, remark="As measured.")
    table.rows.extend([{"name": "a long name", "share": 0.5, "met": True}, {"name": "b", "met": None}])
    assert table.markdown().splitlines() == [
        "### Speed",
        "",
        "| name        | share | met |",
        "| ----------- | ----: | --- |",
        "| a long name |   50% | yes |",
        "| b           |     – | –   |",
        "",
        "As measured.",
    ]


def test_contestants_that_differ_do_not_race() -> None:
    right = torch.tensor([1.0, 2.0])
    check_agreement("same", [right + 1e-6], [right])
    check_agreement("nothing", [right[:0]], [right[:0]])
    for wrong in (right + 0.1, right * torch.nan):
        with pytest.raises(BackendError, match="must compute the same before they race; got other off by"):
            check_agreement("other", [right, wrong], [right, right])


def test_slope_of_a_power() -> None:
    assert slope({float(x): 3.0 * x**2 for x in (1, 2, 5)}) == pytest.approx(2.0)


def test_what_cannot_be_compiled_is_named() -> None:
    from lookaround.studies.bench_network import _first_call

    def refuse() -> torch.Tensor:
        raise torch._dynamo.exc.Unsupported("a branch on data\nand more")

    bench = Bench(Settings(quick=True))
    assert _first_call(bench, "inference, compiled", refuse) is None
    assert bench.notes == ["inference, compiled: Unsupported: a branch on data"]
    assert _first_call(bench, "fine", lambda: torch.ones(1)) is not None
