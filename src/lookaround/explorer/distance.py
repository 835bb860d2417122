"""How far each head looks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lookaround.explorer.recording import Call, Images, choose_attention, record_calls
from lookaround.explorer.window_weights import Span, bands, present_pixels, window_of, window_weights
from lookaround.nn import LocalAttention2d


@dataclass(frozen=True)
class LayerDistances:
    """How far the heads of one layer look: the mean distance from a query to what it looks at.

    Of each query the weights of its window, those within the image, are brought to a sum of 1 and weigh the
    distances; the mean goes over all queries of all images.

    Attributes:
        name: the layer's name in the model, as `named_modules` gives it.
        call: how often the layer was called before on these images.
        size: height and width of the layer's input.
        stride: pixels of the image for each pixel of the layer's input, vertical and horizontal.
        on_map: of each head, in pixels of the layer's input.
        on_image: of each head, in pixels of the image.
        offset: of each head, the mean shift from query to what it looks at, rows down and columns to the
            right, in pixels of the layer's input.
        by_position: as on_map, of the weights that q·[row ; column] alone would give, without the keys; None
            for a layer without relative tables.
        uniform: as on_map, if every pixel of the window had the same weight.
    """

    name: str
    call: int
    size: tuple[int, int]
    stride: tuple[int, int]
    on_map: Float[np.ndarray, " heads"]
    on_image: Float[np.ndarray, " heads"]
    offset: Float[np.ndarray, "heads 2"]
    by_position: Float[np.ndarray, " heads"] | None
    uniform: float


def attention_distances(
    model: nn.Module, images: Images, *, layers: Sequence[str] | None = None
) -> list[LayerDistances]:
    """Measure how far each head of each attention layer looks on some images.

    Args:
        model: any module that holds `LocalAttention2d` or `AttentionStem` layers.
        images: as the model takes them: a batch, or for a detector also a list of images of any sizes.
        layers: names of layers, or patterns as `layer3.*`; None for all.

    Returns:
        The calls of the layers in the order in which the model made them.

    Raises:
        ArgumentError: the model has no attention layer or runs none, or there are no images.
        UnknownNameError: a name or pattern fits no attention layer.

    Cost:
        The weights of every window are computed, a band of rows at a time.

    Source:
        Dosovitskiy et al. 2021, An Image is Worth 16x16 Words, Figure 7 (mean attention distance).

    Example:
        >>> from lookaround import LocalAttention2d
        >>> (layer,) = attention_distances(LocalAttention2d(4, 8, 7, num_heads=2), torch.randn(1, 4, 9, 9))
        >>> layer.on_map.shape, bool((layer.on_map < 4.25).all())  # the corner of a window of 7
        ((2,), True)
    """
    found: list[LayerDistances] = []
    where = "attention_distances"
    chosen = choose_attention(where, model, layers)
    record_calls(where, model, images, chosen, lambda call: found.append(_measure(call)))
    return found


def mean_distances(images: Sequence[Sequence[LayerDistances]]) -> list[LayerDistances]:
    """Average what was measured on several images, each of which counts the same.

    Args:
        images: of each image what `attention_distances` returned, of the same layers. Where sizes differ, the
            first image's is kept.
    """
    means = []
    for layers in zip(*images, strict=True):
        tables = [layer.by_position for layer in layers if layer.by_position is not None]
        fields = {
            name: np.mean([getattr(layer, name) for layer in layers], 0)
            for name in ("on_map", "on_image", "offset")
        }
        by_position = np.mean(tables, 0) if tables else None
        uniform = float(np.mean([layer.uniform for layer in layers]))
        means.append(replace(layers[0], by_position=by_position, uniform=uniform, **fields))
    return means


def _measure(call: Call) -> LayerDistances:
    layer = call.layer
    offsets = _offsets(call)
    lengths = offsets.norm(dim=-1)
    on_image = (offsets * torch.tensor(call.stride, device=offsets.device)).norm(dim=-1)
    sides = torch.stack([lengths, on_image, *offsets.unbind(-1)])  # four kernel_height kernel_width
    content, position, uniform = _Mean(sides), _Mean(sides[:1]), _Mean(sides[:1])
    has_tables = isinstance(layer, LocalAttention2d) and layer.row_embedding is not None
    for band in bands(call):
        everywhere: tuple[Span, Span] = (band, (0, call.size[1]))
        content.add(window_weights(call, *everywhere))
        uniform.add(present_pixels(call, *everywhere).float())
        if has_tables:
            position.add(window_weights(call, *everywhere, content=False))
    means = content.value()
    return LayerDistances(
        name=call.name,
        call=call.number,
        size=call.size,
        stride=call.stride,
        on_map=means[0],
        on_image=means[1],
        offset=means[2:].T,
        by_position=position.value()[0] if has_tables else None,
        uniform=float(uniform.value()[0, 0]),
    )


def _offsets(call: Call) -> Float[Tensor, "kernel_height kernel_width 2"]:
    """Give the shift from a query to every pixel of its window, in pixels of the map."""
    axes = [
        (torch.arange(size, dtype=torch.float64, device=call.x.device) - size // 2) * step
        for size, step in zip(*window_of(call), strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)


class _Mean:
    """Averages the expected values of some quantities over queries, a band at a time."""

    def __init__(self, quantities: Float[Tensor, "quantities kernel_height kernel_width"]) -> None:
        self.quantities = quantities
        self.total: Tensor | float = 0.0
        self.count: Tensor | float = 0.0

    def add(self, weights: Float[Tensor, "batch rows columns heads kernel_height kernel_width"]) -> None:
        """Take part of a map; queries that look at nothing do not count."""
        weights = weights.double()
        whole = weights.sum((-1, -2))
        expected = torch.einsum("bywnij,qij->qbywn", weights, self.quantities) / whole.clamp(min=1e-300)
        self.total = self.total + expected.sum((1, 2, 3))
        self.count = self.count + (whole > 0).sum((0, 1, 2))

    def value(self) -> Float[np.ndarray, "quantities heads"]:
        """Return the means; NaN for a head of which no query looks at anything."""
        assert isinstance(self.total, Tensor)
        assert isinstance(self.count, Tensor)
        means: np.ndarray = (self.total / self.count).float().cpu().numpy()
        return means
