"""Local attention as the paper writes it: plain loops over pixels, in float64, with its gradients.

This file is the truth that every backend is measured against. It shares no code with the library, is written
to be read beside the equations, and is as slow as it looks.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

GRADIENT_NAMES = ("query", "key", "value", "row_embedding", "column_embedding")


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _array(tensor: Tensor | None) -> np.ndarray | None:
    if tensor is None:
        return None
    return tensor.detach().cpu().to(torch.bool if tensor.dtype == torch.bool else torch.float64).numpy()


@dataclass(frozen=True)
class Problem:
    """One call, as float64 arrays."""

    query: np.ndarray
    key: np.ndarray | None
    value: np.ndarray
    row: np.ndarray | None
    column: np.ndarray | None
    padded: np.ndarray | None
    kernel: tuple[int, int]
    dilation: tuple[int, int]
    scale: float
    border: str

    def is_image(self, b: int, y: int, x: int) -> bool:
        """Say whether a pixel is part of the picture: inside the frame and not padding."""
        _, height, width, _, _ = self.query.shape
        if not (0 <= y < height and 0 <= x < width):
            return False
        return self.padded is None or not self.padded[b, y, x]

    def window(self, b: int, y: int, x: int) -> Iterator[tuple[int, int, tuple[int, int] | None]]:
        """Yield (table row, table column, pixel) of all that the softmax counts; pixel None means zeros."""
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                yy = y + (i - self.kernel[0] // 2) * self.dilation[0]
                xx = x + (j - self.kernel[1] // 2) * self.dilation[1]
                if self.is_image(b, yy, xx):
                    yield i, j, (yy, xx)
                elif self.border == "zeros":
                    yield i, j, None

    def embedding(self, head: int, i: int, j: int) -> np.ndarray:
        """Give r: the row offset's vector, then the column offset's vector."""
        head_dim = self.query.shape[-1]
        r = np.zeros(head_dim)
        if self.row is not None:
            r[: head_dim // 2] = self.row[i] if self.row.ndim == 2 else self.row[head, i]
        if self.column is not None:
            r[head_dim // 2 :] = self.column[j] if self.column.ndim == 2 else self.column[head, j]
        return r

    def key_at(self, b: int, head: int, pixel: tuple[int, int] | None) -> np.ndarray:
        """Give k, which is zero outside the image and where there are no keys."""
        if self.key is None or pixel is None:
            return np.zeros(self.query.shape[-1])
        return self.key[b, pixel[0], pixel[1], head]

    def value_at(self, b: int, head: int, pixel: tuple[int, int] | None) -> np.ndarray:
        """Give v, which is zero outside the image."""
        if pixel is None:
            return np.zeros(self.value.shape[-1])
        return self.value[b, pixel[0], pixel[1], head]

    def queries(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield (batch, y, x, head) of every pixel of the picture."""
        batch, height, width, heads, _ = self.query.shape
        for b, y, x, head in np.ndindex(batch, height, width, heads):
            if self.is_image(b, y, x):
                yield b, y, x, head

    def softmax(self, b: int, y: int, x: int, head: int) -> np.ndarray:
        """Give the weights of one query over its window, in the window's order."""
        q = self.query[b, y, x, head]
        logits = np.array(
            [
                self.scale * (q @ self.key_at(b, head, pixel) + q @ self.embedding(head, i, j))
                for i, j, pixel in self.window(b, y, x)
            ]
        )
        exponentials = np.exp(logits - logits.max())
        return exponentials / exponentials.sum()


def problem(
    query: Tensor,
    key: Tensor | None,
    value: Tensor,
    row_embedding: Tensor | None = None,
    column_embedding: Tensor | None = None,
    key_padding_mask: Tensor | None = None,
    *,
    kernel_size: int | tuple[int, int],
    dilation: int | tuple[int, int] = 1,
    scale: float = 1.0,
    border: str = "mask",
) -> Problem:
    """Read a call with the arguments of `lookaround.ops.local_attention`."""
    return Problem(
        *(_array(t) for t in (query, key, value, row_embedding, column_embedding, key_padding_mask)),
        _pair(kernel_size),
        _pair(dilation),
        scale,
        border,
    )


def local_attention(*tensors: Tensor | None, **options) -> Tensor:
    """Compute the output, in float64."""
    p = problem(*tensors, **options)
    out = np.zeros((*p.query.shape[:-1], p.value.shape[-1]))
    for b, y, x, head in p.queries():
        weights = p.softmax(b, y, x, head)
        for weight, (_, _, pixel) in zip(weights, p.window(b, y, x), strict=True):
            out[b, y, x, head] += weight * p.value_at(b, head, pixel)
    return torch.from_numpy(out)


def attention_weights(*tensors: Tensor | None, **options) -> Tensor:
    """Compute batch height width heads kernel_height kernel_width weights, in float64; 0 where absent."""
    query, key, *rest = tensors
    p = problem(query, key, query, *rest, **options)
    weights = np.zeros((*p.query.shape[:-1], *p.kernel))
    for b, y, x, head in p.queries():
        for weight, (i, j, _) in zip(p.softmax(b, y, x, head), p.window(b, y, x), strict=True):
            weights[b, y, x, head, i, j] = weight
    return torch.from_numpy(weights)


def gradients(upstream: Tensor, *tensors: Tensor | None, **options) -> dict[str, Tensor]:
    """Compute the gradient of sum(out * upstream) for every tensor given, in float64, by the chain rule."""
    p = problem(*tensors, **options)
    given = dict(zip(GRADIENT_NAMES, (p.query, p.key, p.value, p.row, p.column), strict=True))
    grads = {name: np.zeros(array.shape) for name, array in given.items() if array is not None}
    g_out = _array(upstream)
    assert g_out is not None
    for place in p.queries():
        _add_gradients_of(p, place, g_out[place], grads)
    return {name: torch.from_numpy(grad) for name, grad in grads.items()}


def _add_gradients_of(
    p: Problem, place: tuple[int, int, int, int], g: np.ndarray, grads: dict[str, np.ndarray]
) -> None:
    b, y, x, head = place
    q, half = p.query[place], p.query.shape[-1] // 2
    window = list(p.window(b, y, x))
    weights = p.softmax(b, y, x, head)
    g_weights = np.array([g @ p.value_at(b, head, pixel) for _, _, pixel in window])
    g_products = p.scale * weights * (g_weights - weights @ g_weights)
    for weight, g_product, (i, j, pixel) in zip(weights, g_products, window, strict=True):
        grads["query"][place] += g_product * (p.key_at(b, head, pixel) + p.embedding(head, i, j))
        if p.row is not None:
            row = grads["row_embedding"] if p.row.ndim == 2 else grads["row_embedding"][head]
            row[i] += g_product * q[:half]
        if p.column is not None:
            column = grads["column_embedding"] if p.column.ndim == 2 else grads["column_embedding"][head]
            column[j] += g_product * q[half:]
        if pixel is None:
            continue
        grads["value"][b, pixel[0], pixel[1], head] += weight * g
        if p.key is not None:
            grads["key"][b, pixel[0], pixel[1], head] += g_product * q
