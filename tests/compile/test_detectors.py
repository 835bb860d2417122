"""The layers of a detector compile to one graph and export for any batch, apart from what chooses boxes."""

from collections.abc import Iterator

import pytest
import torch
from torch.export import Dim

from lookaround import create_model

TINY = {"num_classes": 3, "width": 0.125, "num_heads": 2, "pyramid_channels": 16, "kernel_size": 3}
# One attending stage is as good as four, and compiles four times as fast.
OVERRIDES = {
    "sasa_retinanet_resnet14_small": {"attention_stages": (3,), "levels": (4, 5), "head_depth": 1},
    "retinanet_resnet14_small": {"levels": (5, 6), "head_depth": 1},
}
NAMES = pytest.mark.parametrize("name", OVERRIDES)


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@NAMES
def test_the_layers_are_one_graph_forwards_and_backwards(name: str) -> None:
    model, x = create_model(name, **TINY, **OVERRIDES[name]).train(), torch.randn(2, 3, 32, 64)
    found = []
    for call in (torch.compile(model.network, fullgraph=True, backend="aot_eager"), model.network):
        model.zero_grad()
        outputs = call(x)
        sum(out.square().sum() for levels in outputs.values() for out in levels).backward()
        found.append({key: value.grad.clone() for key, value in model.named_parameters()})
    for key, gradient in found[1].items():
        torch.testing.assert_close(found[0][key], gradient, rtol=1e-3, atol=1e-3, msg=key)


@NAMES
def test_the_layers_with_a_mask_are_one_graph(name: str) -> None:
    model, x = create_model(name, **TINY, **OVERRIDES[name]).eval(), torch.randn(2, 3, 32, 64)
    mask = torch.zeros(2, 32, 64, dtype=torch.bool)
    mask[0, :, 32:] = True
    compiled = torch.compile(model.network, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        found, expected = compiled(x, mask), model.network(x, mask)
    for key, levels in expected.items():
        for mine, theirs in zip(found[key], levels, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def test_exported_layers_serve_any_batch() -> None:
    """By convolution: attention exports too, layer by layer, as the classifiers' tests show."""
    name = "retinanet_resnet14_small"
    model = create_model(name, **TINY, **OVERRIDES[name]).eval()

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: torch.Tensor) -> dict[str, list[torch.Tensor]]:
            return self.model.network(images)

    program = torch.export.export(
        Network(), (torch.randn(2, 3, 32, 64),), dynamic_shapes=({0: Dim("batch", max=64)},)
    )
    for batch in (1, 3):
        x = torch.randn(batch, 3, 32, 64)
        found, expected = program.module()(x), model.network(x)
        for key, levels in expected.items():
            for mine, theirs in zip(found[key], levels, strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
