"""What reaches chosen layers of a model while it runs on images."""

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lookaround.errors import ArgumentError, UnknownNameError, closest, message
from lookaround.models.padding import shrink_mask
from lookaround.models.pyramid import PyramidBackbone
from lookaround.nn import AttentionStem, LocalAttention2d
from lookaround.nn.fusion import FusedLocalAttention2d
from lookaround.ops.call import unpack

Images = Float[Tensor, "batch channels height width"] | Sequence[Tensor]
ATTENTION = (LocalAttention2d, AttentionStem, FusedLocalAttention2d)


@dataclass(frozen=True)
class Call:
    """One call of a layer.

    Attributes:
        name: the layer's name in the model, as `named_modules` gives it.
        number: how often the layer was called before; a detector's heads are called once a level.
        layer: the layer.
        x: what it was given.
        key_padding_mask: True for pixels of x that are no part of an image; None if there are none.
        image_size: height and width of the batch that the model was given.
    """

    name: str
    number: int
    layer: nn.Module
    x: Float[Tensor, "batch channels height width"]
    key_padding_mask: Bool[Tensor, "batch height width"] | None
    image_size: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the map that the layer was given."""
        return self.x.shape[-2], self.x.shape[-1]

    @property
    def stride(self) -> tuple[int, int]:
        """Pixels of the image for each pixel of the map, vertical and horizontal."""
        height, width = map(map_stride, self.image_size, self.size)
        return height, width

    @cached_property
    def query_and_key(self) -> tuple[Tensor, Tensor | None]:
        """The maps that a `LocalAttention2d` compares: batch height width heads head_dim."""
        assert isinstance(self.layer, LocalAttention2d)
        query, key, _ = unpack(self.layer._project(self.x))
        return query, key


@dataclass
class _Batch:
    """What is known of the batch that is in the model."""

    size: tuple[int, int]
    mask: Tensor | None = None
    counts: dict[str, int] = field(default_factory=dict)

    def call(self, name: str, layer: nn.Module, x: Tensor, mask: Tensor | None) -> Call:
        """Describe a call; a layer that was not told of the padding is taken to know it."""
        number = self.counts[name] = self.counts.get(name, -1) + 1
        if x.dim() == 3:
            x, mask = x[None], None if mask is None else mask[None]
        call = Call(name, number, layer, x, mask, self.size)
        if mask is not None or self.mask is None:
            return call
        return Call(name, number, layer, x, shrink_mask(self.mask, call.stride), self.size)


def is_attention(module: nn.Module) -> bool:
    """Tell whether a module is an attention layer or an attention stem."""
    return isinstance(module, ATTENTION)


def choose_attention(
    where: str, model: nn.Module, layers: Sequence[str] | None = None
) -> dict[str, nn.Module]:
    """Return the attention layers of a model by name.

    Args:
        where: the function that complains.
        model: any module.
        layers: names, or patterns as `layer3.*`; None for all.

    Raises:
        ArgumentError: the model has no attention layer.
        UnknownNameError: a name or pattern fits none.
    """
    inside = [part for part in model.modules() if isinstance(part, FusedLocalAttention2d)]
    hidden = {id(fused.attention) for fused in inside}  # never called as a module
    parts = uncompiled(model).named_modules()
    found = {name: part for name, part in parts if is_attention(part) and id(part) not in hidden}
    if not found:
        must = "model must hold a LocalAttention2d or an AttentionStem"
        raise ArgumentError(message(where, must, type(model).__name__))
    if layers is None:
        return found
    for pattern in layers:
        if not fnmatch.filter(found, pattern):
            must = "layers must be names or patterns of attention layers of the model"
            hint = closest(pattern, list(found))
            raise UnknownNameError(message(where, must, repr(pattern), hint=hint))
    return {name: part for name, part in found.items() if any(fnmatch.fnmatch(name, each) for each in layers)}


def uncompiled(model: nn.Module) -> nn.Module:
    """Return what `torch.compile` was given, whose layers can be watched."""
    inner = getattr(model, "_orig_mod", model)
    return inner if isinstance(inner, nn.Module) else model


def record_calls(
    where: str,
    model: nn.Module,
    images: Images,
    layers: dict[str, nn.Module],
    visit: Callable[[Call], None],
) -> None:
    """Run a model on images, in eval mode and without gradients, and show every call of some layers.

    Every part of the model is left in the mode (training or not) that it was in.

    Args:
        where: the function that complains.
        model: the model that holds the layers.
        images: as the model takes them: a batch, or for detectors also a list of images of any sizes.
        layers: by name.
        visit: is given each call before the layer runs.

    Raises:
        ArgumentError: there are no images, or the model has run none of the layers.
    """
    if len(images) == 0:
        raise ArgumentError(message(where, "images must be one or more", len(images)))
    model, batch = uncompiled(model), _Batch(size_of(images))
    backbones = [module for module in model.modules() if isinstance(module, PyramidBackbone)]
    given = list(images) if backbones else images  # detectors take lists
    hooks = [module.register_forward_pre_hook(_see_batch(batch), with_kwargs=True) for module in backbones]
    for name, module in layers.items():
        hooks.append(module.register_forward_pre_hook(_see_call(batch, name, visit), with_kwargs=True))
    try:
        with evaluating(model), torch.inference_mode():
            model(given)
    finally:
        for hook in hooks:
            hook.remove()
    if not batch.counts:
        must = "model must run its attention layers when it is called"
        raise ArgumentError(message(where, must, f"{type(model).__name__}, which ran none"))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode for a while."""
    training = [module for module in model.modules() if module.training]  # a part may be frozen
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


_Hook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]


def _see_batch(batch: _Batch) -> _Hook:
    def see(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        def read(images: Tensor, key_padding_mask: Tensor | None = None) -> None:
            batch.size, batch.mask = (images.shape[-2], images.shape[-1]), key_padding_mask

        read(*inputs, **named)

    return see


def _see_call(batch: _Batch, name: str, visit: Callable[[Call], None]) -> _Hook:
    def see(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        def read(x: Tensor, key_padding_mask: Tensor | None = None) -> None:
            layer = module.attention if isinstance(module, FusedLocalAttention2d) else module
            visit(batch.call(name, layer, x, key_padding_mask))

        read(*inputs, **named)

    return see


def size_of(images: Images) -> tuple[int, int]:
    """Return the least height and width that hold every image."""
    shapes = [images.shape] if isinstance(images, Tensor) else [image.shape for image in images]
    return max(shape[-2] for shape in shapes), max(shape[-1] for shape in shapes)


def map_stride(image: int, small: int) -> int:
    """Return the power of two by which a side became shorter; the nearest whole number where there is none.

    Example:
        >>> [map_stride(10, small) for small in (10, 5, 3, 4)]
        [1, 2, 4, 2]
    """
    powers = (2**n for n in range(image.bit_length() + 1))
    exact = next((power for power in powers if -(-image // power) == small), None)
    return exact if exact is not None else max(1, round(image / max(small, 1)))
