"""Networks as they are deployed: one graph from images to probabilities or to boxes."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from lookaround.errors import ArgumentError, message
from lookaround.models import ResNet, fuse
from lookaround.models.retinanet_config import LAST_STAGE_LEVEL
from lookaround.nn import LocalAttention2d

if TYPE_CHECKING:
    from lookaround.integrations.detector_graph import DetectorGraph, ListedDetector
    from lookaround.models.variants import Model

    Graph: TypeAlias = "ClassifierGraph | DetectorGraph | ListedDetector"
else:
    Graph = nn.Module  # that of a detector needs torchvision

OPERATORS = {"native": "cpu", "portable": "blocked"}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
Example = tuple[Tensor, ...]


@dataclass(frozen=True)
class Plan:
    """How a network is exported.

    Args:
        image_size: height and width of the images, in pixels.
        batch_size: images at a time.
        dynamic: whether the graph serves every other batch size and image size too.
        dtype: "float32", "float16" or "bfloat16": of weights and layers. Images come in, and results go out,
            in float32 in any case.
        takes_pixels: whether the graph takes pixels from 0 to 255 (uint8) and normalises them itself.
        operator: "native" (the kernel of this package, which has to be loaded where the graph runs) or
            "portable" (operators that every runtime has).

    Raises:
        ArgumentError: a value cannot be used.
    """

    image_size: tuple[int, int]
    batch_size: int = 1
    dynamic: bool = False
    dtype: str = "float32"
    takes_pixels: bool = False
    operator: str = "portable"

    def __post_init__(self) -> None:
        counts = (self.batch_size, *self.image_size)
        if len(self.image_size) != 2 or not all(isinstance(n, int) and n >= 1 for n in counts):
            must = "image_size and batch_size must be whole numbers >= 1"
            raise ArgumentError(message("export", must, f"{self.image_size} and {self.batch_size}"))
        for name, value, known in (("dtype", self.dtype, DTYPES), ("operator", self.operator, OPERATORS)):
            if value not in known:
                must = f"{name} must be one of {', '.join(known)}"
                raise ArgumentError(message("export", must, repr(value)))

    def traced_size(self, graph: "Graph") -> tuple[int, int, int]:
        """Return batch, height and width of the images that are traced."""
        # A side of 1, of the batch or of any map, would make a graph of its own.
        return (
            (2, 3 * graph.stride, 5 * graph.stride) if self.dynamic else (self.batch_size, *self.image_size)
        )

    def served_sizes(self, step: int) -> list[tuple[int, int, int]]:
        """Return batches, heights and widths to verify; the first is the one that is measured too.

        Args:
            step: what sides are multiples of.
        """
        height, width = self.image_size
        sizes = [(self.batch_size, height, width)]
        if self.dynamic:
            more, other = -(-5 // step) * step, -(-2 // step) * step
            sizes += [(1, height, width), (3, height + more, width + other), (2, 2 * height, width + more)]
        return list(dict.fromkeys(sizes))


class Entry(nn.Module):
    """Turns what a graph is given into what its network takes.

    Args:
        preprocessing: `mean` and `std`, needed for pixels alone.
        plan: whether it takes pixels, and the dtype of the network.

    Raises:
        ArgumentError: the graph is to take pixels, and mean and std are not known.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessing: Mapping[str, Any], plan: Plan) -> None:
        super().__init__()
        self.takes_pixels, self.dtype = plan.takes_pixels, DTYPES[plan.dtype]
        if not self.takes_pixels:
            return
        if not {"mean", "std"} <= set(preprocessing):
            must = "to take pixels, the preprocessing must have mean and std"
            raise ArgumentError(message("export", must, sorted(preprocessing)))
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(preprocessing[name], dtype=torch.float32)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Return batch channels height width, normalised, in the dtype of the network."""
        if self.takes_pixels:
            images = (images.float() / 255 - self.mean) / self.std
        return images.to(self.dtype)


class ClassifierGraph(nn.Module):
    """From images to the logits and the probabilities of the classes.

    Args:
        model: what classifies.
        entry: what prepares its images.
    """

    input_names = ("images",)
    output_names = ("logits", "probabilities")
    step = 1

    def __init__(self, model: ResNet, entry: Entry) -> None:
        super().__init__()
        self.entry, self.model = entry, model
        self.stride = 2 ** (LAST_STAGE_LEVEL - (2 if model.config.small else 0))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return both, batch num_classes, in float32."""
        logits = self.model(self.entry(images)).float()
        return logits, logits.softmax(-1)


def make_graph(model: "Model", plan: Plan, preprocessing: Mapping[str, Any]) -> Graph:
    """Make the graph of a network, for inference: a copy, in which batch norms of classifiers are folded.

    Args:
        model: the network, in eval mode; it is not changed.
        plan: how it is exported.
        preprocessing: of its images; see `models.ModelRecord`.

    Raises:
        ArgumentError: the network is in training mode, or mean and std are needed and not known.
    """
    if model.training:
        hint = "call .eval() on it first."
        raise ArgumentError(message("export", "the network must be in eval mode", "training mode", hint=hint))
    if not isinstance(model, ResNet):
        _check_sides(plan.image_size)
    inner: Model = fuse(model) if isinstance(model, ResNet) else copy.deepcopy(model).requires_grad_(False)
    set_backend(inner.to(DTYPES[plan.dtype]), OPERATORS[plan.operator])
    entry = Entry(preprocessing, plan)
    if isinstance(inner, ResNet):
        return ClassifierGraph(inner, entry).eval()
    from lookaround.integrations.detector_graph import DetectorGraph

    return DetectorGraph(inner, entry).eval()


def make_reference(model: "Model", plan: Plan, preprocessing: Mapping[str, Any]) -> Graph:
    """Make what an export is compared with: the network itself, nothing folded, in float32.

    Args:
        model: the network, in eval mode; it is not changed.
        plan: how it is exported.
        preprocessing: of its images.
    """
    entry = Entry(preprocessing, Plan(plan.image_size, takes_pixels=plan.takes_pixels))
    if isinstance(model, ResNet):
        return ClassifierGraph(copy.deepcopy(model).float(), entry).eval()
    from lookaround.integrations.detector_graph import ListedDetector

    return ListedDetector(copy.deepcopy(model).float(), entry).eval()


def _check_sides(image_size: tuple[int, int]) -> None:
    from lookaround.models.retinanet import SIZE_DIVISIBLE

    if any(side % SIZE_DIVISIBLE for side in image_size):
        near = tuple(-(-side // SIZE_DIVISIBLE) * SIZE_DIVISIBLE for side in image_size)
        must = f"sides of a detector's images must be multiples of {SIZE_DIVISIBLE}"
        hint = f"try {near[0]} {near[1]}; smaller images stand at the top left."
        raise ArgumentError(message("export", must, image_size, hint=hint))


def set_backend(model: nn.Module, backend: str) -> None:
    """Let every attention layer of a network run by a backend."""
    for module in model.modules():
        if isinstance(module, LocalAttention2d):
            module.backend = backend


def draw_inputs(graph: Graph, size: tuple[int, int, int], *, seed: int = 0) -> Example:
    """Draw images for a graph, and of a detector their sizes: the first fills its batch, others do not.

    Args:
        graph: what `make_graph` or `make_reference` made.
        size: batch, height and width.
        seed: of the generator.
    """
    batch, height, width = size
    draw = torch.Generator().manual_seed(seed)
    shape = (batch, graph.model.config.in_channels, height, width)
    if graph.entry.takes_pixels:
        images = torch.randint(256, shape, generator=draw, dtype=torch.uint8)
    else:
        images = torch.randn(shape, generator=draw)
    if isinstance(graph, ClassifierGraph):
        return (images,)
    less = torch.arange(batch)[:, None] * torch.tensor([3, 1])
    return images, (torch.tensor([height, width]) - less).clamp(min=1)
