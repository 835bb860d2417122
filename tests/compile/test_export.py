"""Exported programs give what the module gives, at fixed sizes and at sizes that were never traced."""

import pytest
import torch
from torch import Tensor
from torch.export import Dim

from backends_under_test import EVERY_BACKEND, device_for, skip_unless_runs
from lookaround.ops import local_attention
from strategies import Case


class Attention(torch.nn.Module):
    """The smallest module around the operator: one projection, two tables."""

    def __init__(self, backend: str, border: str = "mask") -> None:
        super().__init__()
        self.backend, self.border = backend, border
        self.project = torch.nn.Linear(8, 24)
        self.row_embedding = torch.nn.Parameter(torch.randn(3, 2))
        self.column_embedding = torch.nn.Parameter(torch.randn(5, 2))

    def forward(self, x: Tensor, key_padding_mask: Tensor | None = None) -> Tensor:
        query, key, value = self.project(x).unflatten(-1, (3, 2, 4)).unbind(-3)
        out = local_attention(
            query, key, value, self.row_embedding, self.column_embedding, key_padding_mask,
            kernel_size=(3, 5), border=self.border, backend=self.backend,
        )  # fmt: skip
        return out.flatten(-2)


def images(batch: int, height: int, width: int, backend: str) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(batch, height, width, 8, generator=draw).to(device_for(backend))


def module_for(backend: str, border: str = "mask") -> Attention:
    skip_unless_runs(backend, Case())
    return Attention(backend, border).to(device_for(backend)).eval()


@pytest.mark.parametrize("border", ["mask", "zeros"])
@EVERY_BACKEND
def test_export_at_fixed_sizes(backend: str, border: str) -> None:
    module = module_for(backend, border)
    x = images(2, 7, 9, backend)
    program = torch.export.export(module, (x,))
    torch.testing.assert_close(program.module()(x), module(x))


@pytest.mark.parametrize("border", ["mask", "zeros"])
@EVERY_BACKEND
def test_export_serves_sizes_that_were_not_traced(backend: str, border: str) -> None:
    module = module_for(backend, border)
    sizes = {0: Dim("batch", max=64), 1: Dim("height", max=512), 2: Dim("width", max=512)}
    program = torch.export.export(module, (images(2, 12, 20, backend),), dynamic_shapes={"x": sizes})
    exported = program.module()
    for batch, height, width in ((2, 12, 20), (1, 8, 8), (3, 17, 9), (5, 33, 3)):
        x = images(batch, height, width, backend)
        torch.testing.assert_close(exported(x), module(x))


@EVERY_BACKEND
def test_export_with_padding(backend: str) -> None:
    module = module_for(backend)
    x, mask = images(2, 9, 10, backend), torch.zeros(2, 9, 10, dtype=torch.bool, device=device_for(backend))
    mask[:, 6:], mask[1, :, 7:] = True, True
    shared = {0: Dim("batch", max=64), 1: Dim("height", max=512), 2: Dim("width", max=512)}
    program = torch.export.export(module, (x, mask), dynamic_shapes={"x": shared, "key_padding_mask": shared})
    for given in ((x, mask), (x[:1], mask[:1])):
        torch.testing.assert_close(program.module()(*given), module(*given))


@EVERY_BACKEND
def test_an_exported_program_can_be_saved_and_loaded(backend: str, tmp_path) -> None:
    module = module_for(backend)
    x = images(2, 7, 9, backend)
    torch.export.save(torch.export.export(module, (x,)), tmp_path / "attention.pt2")
    loaded = torch.export.load(tmp_path / "attention.pt2")
    torch.testing.assert_close(loaded.module()(x), module(x))


@EVERY_BACKEND
def test_an_exported_program_can_be_trained(backend: str) -> None:
    """Training graphs are exported too: decompositions and gradients of the graph are those of the module."""
    module = module_for(backend)
    x = images(2, 7, 9, backend)
    exported = torch.export.export(module, (x,)).module()
    exported(x).square().sum().backward()
    module(x).square().sum().backward()
    mine, theirs = dict(exported.named_parameters()), dict(module.named_parameters())
    assert mine.keys() == theirs.keys()
    for name in theirs:
        torch.testing.assert_close(mine[name].grad, theirs[name].grad, rtol=1e-4, atol=1e-5)
