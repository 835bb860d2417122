"""The layers are one graph, exported programs give what they give, and torch.func transforms them."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.func import functional_call, grad, jvp, vmap

from lookaround.nn import AttentionStem, ConvStem, DropPath, LocalAttention2d

LAYERS = {
    "relative": lambda: LocalAttention2d(3, 8, (3, 5), num_heads=2),
    "strided_per_head": lambda: LocalAttention2d(3, 8, 3, 2, num_heads=2, shared_tables=False, bias=True),
    "absolute": lambda: LocalAttention2d(3, 8, 3, num_heads=2, position="absolute"),
    "position_only_zeros": lambda: LocalAttention2d(3, 8, 3, num_heads=2, content=False, border="zeros"),
    "dilated": lambda: LocalAttention2d(3, 8, 3, dilation=(1, 2), num_heads=2, position="none"),
    "stem_spatially_aware": lambda: AttentionStem(3, 8, 2),
    "stem_plain": lambda: AttentionStem(3, 8, 2, values="plain"),
    "stem_convolution": lambda: AttentionStem(3, 8, 2, values="convolution"),
    "conv_stem": lambda: ConvStem(3, 8),
}
EVERY_LAYER = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
ATTENTION = pytest.mark.parametrize(
    "make", [make for name, make in LAYERS.items() if "stem" not in name],
    ids=[name for name in LAYERS if "stem" not in name],
)  # fmt: skip


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def output_and_gradients(call, layer: nn.Module, x: Tensor) -> dict[str, Tensor]:
    x = x.detach().requires_grad_()
    layer.zero_grad()
    out = call(x)
    out.square().sum().backward()
    return {"out": out.detach(), "x": x.grad, **{name: p.grad for name, p in layer.named_parameters()}}


def assert_same(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert mine.keys() == theirs.keys()
    for name in theirs:
        torch.testing.assert_close(mine[name], theirs[name], rtol=1e-4, atol=1e-4, msg=name)


@EVERY_LAYER
def test_one_graph_forwards_and_backwards(make) -> None:
    layer, x = make().eval(), torch.randn(2, 3, 6, 9)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert_same(output_and_gradients(compiled, layer, x), output_and_gradients(layer, layer, x))


def test_generated_code_gives_what_eager_gives() -> None:
    layer, x = LAYERS["strided_per_head"]().eval(), torch.randn(2, 3, 8, 8)
    compiled = torch.compile(layer, fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x), rtol=1e-4, atol=1e-5)


def test_one_graph_with_padding() -> None:
    layer, x = LAYERS["strided_per_head"](), torch.randn(2, 3, 5, 6)
    mask = torch.zeros(2, 5, 6, dtype=torch.bool)
    mask[:, 2:], mask[1, :, 3:] = True, True
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, mask), layer(x, mask))


def test_stochastic_depth_is_one_graph() -> None:
    layer = DropPath(0.5)
    out = torch.compile(layer, fullgraph=True, backend="aot_eager")(torch.ones(64, 2))
    assert set(out.unique().tolist()) == {0.0, 2.0}


# What sizes are multiples of: whether a stride or a block divides them is a branch of its own.
STEPS = {"absolute": 1, "strided_per_head": 2, "stem_spatially_aware": 4, "stem_convolution": 4}


@pytest.mark.parametrize(("name", "step"), STEPS.items())
def test_export_serves_sizes_that_were_not_traced(name: str, step: int) -> None:
    layer = LAYERS[name]().eval()
    height, width = (step * Dim(side, min=2, max=64) for side in ("rows", "columns"))
    sizes = {0: Dim("batch", max=64), 2: height, 3: width}
    program = torch.export.export(layer, (torch.randn(2, 3, 12, 20),), dynamic_shapes=(sizes,))
    exported = program.module()
    for batch, *size in ((2, 12, 20), (1, 8, 8), (3, 32, 16)):
        x = torch.randn(batch, 3, *size)
        torch.testing.assert_close(exported(x), layer(x))


@ATTENTION
def test_vmap_over_images_is_a_batch(make) -> None:
    layer, x = make(), torch.randn(3, 3, 5, 6)
    torch.testing.assert_close(vmap(layer)(x), layer(x))
    torch.testing.assert_close(vmap(layer)(x[:, None])[:, 0], layer(x))


@ATTENTION
def test_grad_of_the_layer_is_that_of_backward(make) -> None:
    layer, x = make(), torch.randn(2, 3, 5, 6)
    parameters = dict(layer.named_parameters())

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(layer, parameters, (x,)).square().sum()

    gradients, of_x = grad(loss, argnums=(0, 1))(parameters, x)
    assert_same({"x": of_x, **gradients}, _without_out(output_and_gradients(layer, layer, x)))


@ATTENTION
def test_gradients_of_each_image_are_those_of_a_loop(make) -> None:
    layer, x = make(), torch.randn(3, 3, 5, 6)
    parameters = {name: value.detach() for name, value in layer.named_parameters()}

    def loss(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        return functional_call(layer, parameters, (image[None],)).square().sum()

    together = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    each = [grad(loss)(parameters, image) for image in x]
    for name, gradients in together.items():
        expected = torch.stack([gradient[name] for gradient in each])
        torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-4)


def test_an_ensemble_of_layers_is_one_call() -> None:
    layers = [LAYERS["strided_per_head"]() for _ in range(3)]
    stacked, _ = torch.func.stack_module_state(layers)
    x = torch.randn(2, 3, 5, 6)
    together = vmap(lambda p: functional_call(layers[0], p, (x,)))(stacked)
    torch.testing.assert_close(together, torch.stack([layer(x) for layer in layers]))


def test_forward_mode_runs_through_the_reference() -> None:
    layer = LocalAttention2d(2, 4, 3, num_heads=2, backend="reference", dtype=torch.float64)
    x, direction = torch.randn(2, 1, 2, 4, 4, dtype=torch.float64)
    _, tangent = jvp(layer, (x,), (direction,))
    step = 1e-6
    expected = (layer(x + step * direction) - layer(x - step * direction)) / (2 * step)
    torch.testing.assert_close(tangent, expected, rtol=1e-5, atol=1e-6)


def _without_out(found: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in found.items() if name != "out"}
