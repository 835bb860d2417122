"""Where a network looks, as plain arrays."""

from collections.abc import Callable
from dataclasses import dataclass

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
    has weight 0. The model is left in the mode (training or not) that it was in.

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
            hooks.append(module.register_forward_pre_hook(_recorder(name, found)))
    if not hooks:
        must = "model must hold a LocalAttention2d or an AttentionStem"
        raise ArgumentError(message("attention_maps", must, type(model).__name__))
    was_training = model.training
    try:
        with torch.inference_mode():
            model.eval()(images)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return found


def _recorder(name: str, found: list[LayerMaps]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(module, LocalAttention2d):
            weights, dilation = module.attention_weights(inputs[0]), module.dilation
        else:
            assert isinstance(module, AttentionStem)
            weights, dilation = _stem_windows(module, inputs[0]), (1, 1)
        found.append(LayerMaps(name, weights.float().cpu().numpy(), dilation))

    return record


def _stem_windows(stem: AttentionStem, images: Tensor) -> Tensor:
    """Centre each query's block weights in a window of 2·block - 1 pixels a side."""
    size = stem.block_size
    blocks = stem.attention_weights(images)  # batch blocks_y blocks_x heads queries keys
    blocks = blocks.unflatten(-1, (size, size)).unflatten(-3, (size, size))
    windows = blocks.new_zeros(*blocks.shape[:-2], 2 * size - 1, 2 * size - 1)
    for y in range(size):
        for x in range(size):
            rows, columns = slice(size - 1 - y, 2 * size - 1 - y), slice(size - 1 - x, 2 * size - 1 - x)
            windows[..., y, x, rows, columns] = blocks[..., y, x, :, :]
    windows = windows.permute(0, 1, 4, 2, 5, 3, 6, 7)  # batch blocks_y y blocks_x x heads window window
    joined: Tensor = windows.flatten(4, 5).flatten(1, 2)
    return joined[:, : images.shape[-2], : images.shape[-1]]
