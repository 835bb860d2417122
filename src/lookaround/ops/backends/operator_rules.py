"""What torch is told alike about the operators of every backend with kernels of its own.

Their forward operators take six tensors (query, key, value, two tables, the padding mask) and four options
(kernel_size, dilation, scale, border), and return the output and the log-sum-exp of every query.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lookaround.errors import UnsupportedCallError, message
from lookaround.ops.call import Call

Outputs = tuple[Tensor, ...]
Sizes = Sequence[int]
Mapped = tuple[Outputs, tuple[int, ...]]

INPUTS, DIFFERENTIABLE = 6, 5  # tensors of a call; those that have gradients, which come first
TABLES, IMAGES = (3, 4), (0, 1, 2, 5)  # places of what has no batch, and of what has one


def fake_forward(query: Tensor, key: Tensor | None, value: Tensor, *rest: Any) -> Outputs:
    """Shape what a forward operator returns."""
    batch, height, width, heads, _ = query.shape
    logsumexp = query.new_empty((batch, heads, height, width), dtype=torch.float32)
    return query.new_empty(value.shape), logsumexp


def fake_backward(grad_out: Tensor, *inputs: Any) -> Outputs:
    """Shape what a backward operator returns: empty for what was not given."""
    given = (inputs[0].new_empty(0 if one is None else one.shape) for one in inputs[:DIFFERENTIABLE])
    return tuple(given)


def keep_needed(ctx: Any, gradients: Outputs) -> tuple[Tensor | None, ...]:
    """Keep the gradients that somebody needs; mask and options have none."""
    needed = ctx.needs_input_grad[:DIFFERENTIABLE]
    kept = (gradient if need else None for gradient, need in zip(gradients, needed, strict=True))
    return (*kept, None, None, None, None, None)


def refuse_second_derivative(backend: str) -> UnsupportedCallError:
    """Say that a backend has first derivatives only."""
    must = f"backend '{backend}' gives first derivatives only"
    hint = "use backend='reference', which can be differentiated any number of times."
    return UnsupportedCallError(message("local_attention", must, "a second derivative", hint=hint))


def map_forward(
    operator: Callable[..., Outputs], info: Any, in_dims: tuple[Any, ...], arguments: tuple[Any, ...]
) -> Mapped:
    """Map a forward operator over a further dimension, as a part of the batch where the tables are shared."""
    if any(isinstance(in_dims[place], int) for place in TABLES):
        return map_one_by_one(operator, info, in_dims, arguments)
    folded = list(arguments)
    for place in IMAGES:
        if arguments[place] is not None:
            folded[place] = _fold(arguments[place], in_dims[place], info.batch_size)
    parts = tuple(output.unflatten(0, (info.batch_size, -1)) for output in operator(*folded))
    return parts, (0,) * len(parts)


def _fold(image: Tensor, dim: Any, samples: int) -> Tensor:
    mapped = image.movedim(dim, 0) if isinstance(dim, int) else image.expand(samples, *image.shape)
    return mapped.flatten(0, 1)


def map_one_by_one(
    operator: Callable[..., Outputs], info: Any, in_dims: tuple[Any, ...], arguments: tuple[Any, ...]
) -> Mapped:
    """Map an operator over a further dimension, sample by sample.

    So a backward operator must be: a table has a gradient for each sample, even one that all share.
    """
    results = []
    for sample in range(info.batch_size):
        pairs = zip(arguments, in_dims, strict=True)
        results.append(
            operator(*(one.select(dim, sample) if isinstance(dim, int) else one for one, dim in pairs))
        )
    stacked = tuple(torch.stack(parts) for parts in zip(*results, strict=True))
    return stacked, (0,) * len(stacked)


def call_of(shapes: Sequence[Sizes | None], options: Sequence[Any]) -> Call:
    """Describe a call of which only the shapes are known, to count its FLOPs."""
    query, key, value, rows, columns, padding = shapes
    kernel_size, dilation, scale, border = options
    assert query is not None
    assert value is not None
    batch, height, width, heads, head_dim = query
    return Call(
        batch=batch,
        height=height,
        width=width,
        num_heads=heads,
        head_dim=head_dim,
        value_dim=value[-1],
        kernel_size=(kernel_size[0], kernel_size[1]),
        dilation=(dilation[0], dilation[1]),
        scale=scale,
        border=border,
        has_key=key is not None,
        has_row_embedding=rows is not None,
        has_column_embedding=columns is not None,
        has_padding=padding is not None,
        dtype=torch.float32,
        device=torch.device("cpu"),
        requires_grad=False,
    )
