"""The peers compute what the operator computes; one that is missing or refuses is named, never an error."""

import sys
import types

import pytest
import torch

from lookaround.ops import local_attention
from lookaround.ops.call import Border, Inputs
from lookaround.studies import bench_peers, peers
from lookaround.studies.bench_context import Bench, Settings
from lookaround.studies.bench_peers import Candidate
from lookaround.studies.bench_shapes import Shape
from lookaround.studies.bench_tables import Table

SHAPE = Shape(16, 8, 3)


def make_inputs() -> Inputs:
    images = (torch.randn(2, 5, 7, 2, 4, dtype=torch.float64) for _ in range(3))
    tables = (torch.randn(3, 2, dtype=torch.float64) for _ in range(2))
    query, key, value, rows, columns = (tensor.requires_grad_() for tensor in (*images, *tables))
    return Inputs(query, key, value, rows, columns, None)


@pytest.mark.parametrize("border", ["mask", "zeros"])
@pytest.mark.parametrize("peer", [peers.unfold_attention, peers.shifted_attention])
def test_peer_equals_the_operator(peer: peers.Peer, border: Border) -> None:
    inputs = make_inputs()
    expected = local_attention(*inputs, kernel_size=3, border=border, backend="reference")
    actual = peer(inputs, kernel_size=3, border=border)
    torch.testing.assert_close(actual, expected)
    if border == "mask":  # under "zeros" they add the position to the padded keys too, as the operator does
        grad_out = torch.randn_like(expected)
        gradients = [torch.autograd.grad(out, inputs[:5], grad_out) for out in (actual, expected)]
        torch.testing.assert_close(*gradients)


def test_a_peer_that_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(inputs: Inputs) -> torch.Tensor:
        raise RuntimeError("no such device\nand a long story")

    bench = Bench(Settings(quick=True, repeats=1))
    monkeypatch.setattr(bench_peers, "candidates", lambda _: [Candidate("sulky", lambda shape: refuse)])
    race = bench_peers._race_operators(bench, SHAPE, "forward", 1)
    assert "sulky" not in race.timings
    assert bench.notes == ["sulky at C=16, 8x8, forward: RuntimeError: no such device"]
    rows = bench_peers._rows(race, SHAPE, "forward", 1)
    assert rows == bench_peers._fastest_rows(bench, rows) == []


def test_peers_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_peers.importlib.util, "find_spec", lambda name: None)
    bench = Bench(Settings(quick=True, repeats=1))
    assert bench_peers._make_halo(bench, SHAPE) is None
    bench_peers._measure_natten(bench, Table("layers", {}), 1)
    assert bench.notes == ["timm HaloAttn: timm is not installed", "NATTEN: natten is not installed"]


def test_natten_is_compared_in_the_interior(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in that differs at the border, as NATTEN's shifted windows do."""

    def na2d(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: object) -> torch.Tensor:
        assert options == {"kernel_size": 3, "scale": 1.0}
        return local_attention(query, key, value, kernel_size=3, border="zeros")

    module = types.ModuleType("natten")
    module.na2d = na2d  # type: ignore[attr-defined]
    module.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "natten", module)
    bench, table = Bench(Settings(quick=True, repeats=1)), Table("layers", bench_peers.COLUMNS)
    bench_peers._measure_natten(bench, table, 2)
    assert [row["peer"] for row in table.rows] == ["NATTEN (no tables)"] * 2
    assert bench.notes == []


def test_tiles_hold_every_pixel_once_and_keep_neighbours_together() -> None:
    order = peers._by_tiles(21, 13)
    assert sorted(order.tolist()) == list(range(21 * 13))
    first = order[:64]
    assert int((first // 13).max()) == 7  # the first tile: eight rows
    assert int((first % 13).max()) == 7  # by eight columns
