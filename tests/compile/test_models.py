"""Networks compile to one graph and export for any batch."""

from collections.abc import Iterator

import pytest
import torch
from torch.export import Dim

from lookaround import create_model

# One attending stage is as good as four, and compiles four times as fast.
TINY = {"width": 0.25, "num_classes": 3, "kernel_size": 3, "in_channels": 1}
OVERRIDES = {
    "sasa_resnet14_small": {"attention_stages": (3,)},
    "resnet14_small": {},
}
NAMES = pytest.mark.parametrize("name", OVERRIDES)


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@NAMES
def test_a_network_is_one_graph_forwards_and_backwards(name: str) -> None:
    model, x = create_model(name, **OVERRIDES[name], **TINY).train(), torch.randn(3, 1, 12, 12)
    found = []
    for call in (torch.compile(model, fullgraph=True, backend="aot_eager"), model):
        model.zero_grad()
        call(x).square().sum().backward()
        found.append({key: value.grad.clone() for key, value in model.named_parameters()})
    for key, gradient in found[1].items():
        torch.testing.assert_close(found[0][key], gradient, rtol=1e-3, atol=1e-4, msg=key)


@NAMES
def test_an_exported_network_serves_any_batch(name: str) -> None:
    model = create_model(name, **OVERRIDES[name], **TINY).eval()
    program = torch.export.export(
        model, (torch.randn(2, 1, 12, 12),), dynamic_shapes=({0: Dim("batch", max=1024)},)
    )
    for batch in (1, 2, 5):
        x = torch.randn(batch, 1, 12, 12)
        torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-5)
