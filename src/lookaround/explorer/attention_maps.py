"""Where a network looks, as plain arrays."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lookaround.errors import ArgumentError, message
from lookaround.nn import AttentionStem, LocalAttention2d


@dataclass(frozen=True)
class LayerMaps:
    """Where one layer looks.

    Attributes:
        name: the layer's name in the model, as `named_modules` gives it.
        weights: for every image, pixel of the layer's input, head: the weights of its window, float32.
        dilation: distance between neighbours in the window, vertical and horizontal.
    """

    name: str
    weights: Float[np.ndarray, "batch height width heads kernel_height kernel_width"]
    dilation: tuple[int, int]

    def on_image(self, image: int, head: int, row: int, column: int) -> Float[np.ndarray, "height width"]:
        """Lay the window of one query pixel out on the whole map, with 0 outside of it."""
        height, width = self.weights.shape[1:3]
        kernel_height, kernel_width = self.weights.shape[-2:]
        out = np.zeros((height, width), np.float32)
        for i in range(kernel_height):
            for j in range(kernel_width):
                y = row + (i - kernel_height // 2) * self.dilation[0]
                x = column + (j - kernel_width // 2) * self.dilation[1]
                if 0 <= y < height and 0 <= x < width:
                    out[y, x] = self.weights[image, row, column, head, i, j]
        return out


def attention_maps(model: nn.Module, images: Float[Tensor, "batch channels height width"]) -> list[LayerMaps]:
    """Run a model on images and return where each of its attention layers looks.

    An attention stem is shown as a window of twice its block, in which everything outside the query's block
    has weight 0. Every part of the model is left in the mode (training or not) that it was in.

    Args:
        model: any module that holds `LocalAttention2d` or `AttentionStem` layers.
        images: a batch as the model takes it.

    Raises:
        ArgumentError: the model has no attention layer.

    Example:
        >>> from lookaround import LocalAttention2d
        >>> maps = attention_maps(LocalAttention2d(4, 8, 3, num_heads=2), torch.randn(1, 4, 5, 6))
        >>> maps[0].weights.shape
        (1, 5, 6, 2, 3, 3)
    """
    found: list[LayerMaps] = []
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, (LocalAttention2d, AttentionStem)):
            hooks.append(module.register_forward_pre_hook(_recorder(name, found), with_kwargs=True))
    if not hooks:
        must = "model must hold a LocalAttention2d or an AttentionStem"
        raise ArgumentError(message("attention_maps", must, type(model).__name__))
    training = [module for module in model.modules() if module.training]  # a part may be frozen
    try:
        with torch.inference_mode():
            model.eval()(images)
    finally:
        for module in training:
            module.training = True
        for hook in hooks:
            hook.remove()
    return found


_Recorder = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]


def _recorder(name: str, found: list[LayerMaps]) -> _Recorder:
    def record(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        if isinstance(module, LocalAttention2d):
            # Called as the layer itself is, so that padding is hidden here too.
            weights, dilation = module.attention_weights(*inputs, **named), module.dilation
        else:
            assert isinstance(module, AttentionStem)
            weights, dilation = _stem_windows(module, *inputs, **named), (1, 1)
        found.append(LayerMaps(name, weights.float().cpu().numpy(), dilation))

    return record


def _stem_windows(stem: AttentionStem, x: Tensor) -> Tensor:
    """Centre each query's block weights in a window of 2·block - 1 pixels a side."""
    size = stem.block_size
    blocks = stem.attention_weights(x)  # batch blocks_y blocks_x heads queries keys
    blocks = blocks.unflatten(-1, (size, size)).unflatten(-3, (size, size))
    windows = blocks.new_zeros(*blocks.shape[:-2], 2 * size - 1, 2 * size - 1)
    for i in range(size):
        for j in range(size):
            rows, columns = slice(size - 1 - i, 2 * size - 1 - i), slice(size - 1 - j, 2 * size - 1 - j)
            windows[..., i, j, rows, columns] = blocks[..., i, j, :, :]
    windows = windows.permute(0, 1, 4, 2, 5, 3, 6, 7)  # batch blocks_y y blocks_x x heads window window
    joined: Tensor = windows.flatten(3, 4).flatten(1, 2)
    return joined[:, : x.shape[-2], : x.shape[-1]]
