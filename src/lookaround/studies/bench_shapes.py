"""The sizes at which the operator and the layer are measured, and inputs of these sizes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lookaround.nn.projected_attention import WIDE
from lookaround.ops import local_attention
from lookaround.ops.call import Call, Inputs, check_call
from lookaround.studies.agreement import check_agreement
from lookaround.studies.bench_context import Bench


@dataclass(frozen=True)
class Shape:
    """One size of the layer.

    Attributes:
        channels: of the whole layer, all heads together.
        size: pixels a side.
        kernel_size: of the window.
        heads: as many as divide the channels.
    """

    channels: int
    size: int
    kernel_size: int = 7
    heads: int = 8

    def __str__(self) -> str:
        return f"C={self.channels}, {self.size}x{self.size}"


# Where ResNet-50 has its 3x3 convolutions, for images of 224 pixels.
RESNET_SHAPES = (Shape(64, 56), Shape(128, 28), Shape(256, 14), Shape(512, 7))
QUICK_SHAPES = (Shape(16, 8, 3), Shape(32, 5, 3))


def shapes(bench: Bench) -> tuple[Shape, ...]:
    """The four sizes of ResNet-50, or two tiny ones."""
    return QUICK_SHAPES if bench.settings.quick else RESNET_SHAPES


@dataclass(frozen=True)
class Problem:
    """A call of the operator: inputs that need gradients, and a gradient of the output.

    Attributes:
        inputs: query, key, value and both tables; leaves.
        grad_out: of the output.
        call: its description.
    """

    inputs: Inputs
    grad_out: Tensor
    call: Call

    def run(self, backend: str) -> Tensor:
        """Call the operator by a backend."""
        return local_attention(*self.inputs, kernel_size=self.call.kernel_size, backend=backend)

    def leaves(self) -> list[Tensor]:
        """The inputs that there are."""
        return [tensor for tensor in self.inputs if tensor is not None]

    def gradients(self, out: Tensor, *, keep: bool = False) -> tuple[Tensor, ...]:
        """Differentiate an output; `keep` allows it once more."""
        leaves = self.leaves()
        return torch.autograd.grad(out, leaves, self.grad_out, retain_graph=keep)

    def forward_work(self, function: Callable[[], Tensor]) -> Callable[[], object]:
        """The forward pass without gradients, as work to time."""

        def work() -> Tensor:
            with torch.inference_mode():
                return function()

        return work

    def training_work(self, function: Callable[[], Tensor]) -> Callable[[], object]:
        """Forward and backward pass, as work to time."""
        return lambda: self.gradients(function())


def make_problem(bench: Bench, shape: Shape, batch: int, *, fused: bool = True) -> Problem:
    """Draw inputs for the operator.

    Args:
        bench: device and dtype.
        shape: the size.
        batch: images.
        fused: whether query, key and value are slices of one tensor, which lies as the layer gives it: on the
            processor wide images are channels of pixels.
    """
    options: Any = {"device": bench.device, "dtype": bench.dtype}
    head_dim = shape.channels // shape.heads
    if fused and bench.device.type == "cpu" and shape.size >= WIDE:
        planes = torch.randn(3, shape.heads, head_dim, batch, shape.size, shape.size, **options)
        maps = planes.permute(3, 4, 5, 0, 1, 2)
    else:
        maps = torch.randn(batch, shape.size, shape.size, 3, shape.heads, head_dim, **options)
    maps[..., 0, :, :] /= (2 * head_dim) ** 0.5  # logits of unit variance, as the layer starts with
    parts = maps.unbind(3) if fused else [part.contiguous() for part in maps.unbind(3)]
    tables = [torch.randn(shape.kernel_size, head_dim // 2, **options) for _ in range(2)]
    query, key, value, rows, columns = (t.detach().requires_grad_() for t in (*parts, *tables))
    inputs = Inputs(query, key, value, rows, columns, None)
    call = check_call("bench", inputs, kernel_size=shape.kernel_size)
    return Problem(inputs, torch.randn(value.shape, **options), call)


def check_backends(bench: Bench, shape: Shape, backends: list[str]) -> None:
    """Compare the backends' outputs and gradients with those of the reference, on two images.

    Raises:
        BackendError: one of them differs.
    """
    problem = make_problem(bench, shape, 2)
    expected = problem.run("reference")
    gradients = problem.gradients(expected)
    for backend in backends:
        out = problem.run(backend)
        check_agreement(f"{backend} at {shape}", [out, *problem.gradients(out)], [expected, *gradients])


def usable_backends(bench: Bench, shape: Shape) -> list[str]:
    """The backends but the reference that can run here; what is missing is noted with its reasons."""
    from lookaround.ops import explain_backends

    problem = make_problem(bench, shape, 1)
    reasons = explain_backends(*problem.inputs, kernel_size=shape.kernel_size)
    usable = [name for name, against in reasons.items() if not against and name != "reference"]
    for name, against in reasons.items():
        note = f"backend {name}: {'; '.join(against)}"
        if against and note not in bench.notes:
            bench.notes.append(note)
    return usable
