"""Local attention: every pixel looks at the window around it."""

from typing import TypedDict, Unpack

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lookaround.errors import ShapeError, message
from lookaround.ops import dispatch
from lookaround.ops.backends import reference
from lookaround.ops.backends.base import hide_padding
from lookaround.ops.call import Inputs, check_call, unpack
from lookaround.ops.modes import autocast_dtype, autocasts


class WindowOptions(TypedDict, total=False):
    """The options that say what a window is: kernel_size, dilation, scale and border of `local_attention`."""

    kernel_size: int | tuple[int, int]
    dilation: int | tuple[int, int]
    scale: float
    border: str


def local_attention(
    query: Float[Tensor, "batch height width heads head_dim"],
    key: Float[Tensor, "batch height width heads head_dim"] | None,
    value: Float[Tensor, "batch height width heads value_dim"],
    row_embedding: Float[Tensor, "*heads_and_kernel_height half_head_dim"] | None = None,
    column_embedding: Float[Tensor, "*heads_and_kernel_width half_head_dim"] | None = None,
    key_padding_mask: Bool[Tensor, "batch height width"] | None = None,
    *,
    kernel_size: int | tuple[int, int],
    dilation: int | tuple[int, int] = 1,
    scale: float = 1.0,
    border: str = "mask",
    backend: str = "auto",
) -> Float[Tensor, "batch height width heads value_dim"]:
    """Let every pixel attend to the window around it.

    `out = Σ softmax(scale · (q·k + q·[row ; column])) v`, summed over the `kernel_size` window centred on
    the query. The first half of `head_dim` meets the row embedding of the pixel's vertical offset, the
    second half the column embedding of its horizontal offset; a table that is absent adds nothing.

    Args:
        query: what each pixel asks.
        key: what each pixel answers to, or None for logits from the position alone.
        value: what each pixel gives; `value_dim` need not equal `head_dim`.
        row_embedding: `(kernel_height, head_dim/2)`, or `(heads, kernel_height, head_dim/2)`; entry i
            belongs to the pixel `(i - kernel_height // 2) * dilation` rows below the query.
        column_embedding: the same for the columns, to the right.
        key_padding_mask: True for pixels that are no part of the image. They are treated as pixels outside
            of it are, and their own output is zero.
        kernel_size: the window's height and width in pixels; odd; an integer or a pair.
        dilation: distance between neighbours in the window, in pixels; an integer or a pair.
        scale: factor of the logits. The paper's equation has none.
        border: "mask": pixels outside the image do not exist, and the softmax runs over those that do.
            "zeros": they have key and value zero and take part in the softmax.
        backend: "auto", or a name from `list_backends()`.

    Returns:
        One vector per pixel and head, of the dtype of `query`. Softmax and sums run in float32 at least.
        A query with nothing to attend to gives zero.

    Raises:
        ArgumentError: an option has a value that cannot be used.
        ShapeError: shapes do not fit together.
        DtypeError: dtypes or devices differ, outside of autocast.
        UnknownBackendError: no backend has this name.
        UnsupportedCallError: the backend cannot run this call.

    Cost:
        `4·k²·heads·head_dim` FLOPs a pixel plus `2·k` products for the position; see `ops.cost`.

    Source:
        Ramachandran et al., Stand-Alone Self-Attention in Vision Models, equations 2 and 3.

    Departures from the paper:
        The paper leaves the border open; both readings are here.

    Example:
        >>> import torch
        >>> query = key = torch.zeros(1, 1, 4, 1, 2)          # a row of four pixels, one head
        >>> value = torch.tensor([1.0, 2, 3, 6]).view(1, 1, 4, 1, 1)
        >>> local_attention(query, key, value, kernel_size=3).flatten()
        tensor([1.5000, 2.0000, 3.6667, 4.5000])
    """
    inputs = Inputs(query, key, value, row_embedding, column_embedding, key_padding_mask)
    # A literal, for torch.compile cannot trace the call of a TypedDict.
    options: WindowOptions = {
        "kernel_size": kernel_size,
        "dilation": dilation,
        "scale": scale,
        "border": border,
    }
    if not autocasts(query.device.type):
        return _run(inputs, backend, options)
    with torch.autocast(query.device.type, enabled=False):  # softmax and sums stay in float32
        return _run(_cast(inputs), backend, options)


def local_attention_packed(
    projected: Float[Tensor, "batch height width maps heads head_dim"],
    row_embedding: Float[Tensor, "*heads_and_kernel_height half_head_dim"] | None = None,
    column_embedding: Float[Tensor, "*heads_and_kernel_width half_head_dim"] | None = None,
    key_padding_mask: Bool[Tensor, "batch height width"] | None = None,
    *,
    backend: str = "auto",
    **options: Unpack[WindowOptions],
) -> Float[Tensor, "batch height width heads head_dim"]:
    """Do `local_attention` on the maps of one projection, as layers make them.

    Computes what `local_attention(*projected.unbind(3), …)` computes. A backend that knows this form writes
    the gradient of the projection in one piece, where autograd would stack those of its maps.

    Args:
        projected: its maps are query, key and value, or query and value for logits from the position alone.
        row_embedding: see `local_attention`, as all that follows.
        column_embedding: see there.
        key_padding_mask: see there.
        backend: see there.
        options: kernel_size, dilation, scale and border.

    Raises:
        ShapeError: projected has not six dimensions, or not two or three maps; else as `local_attention`.

    Example:
        >>> import torch
        >>> local_attention_packed(torch.randn(1, 5, 5, 3, 2, 4), kernel_size=3).shape
        torch.Size([1, 5, 5, 2, 4])
    """
    if projected.dim() != 6 or projected.shape[3] not in (2, 3):
        must = "projected must have the shape (batch, height, width, 2 or 3 maps, heads, head_dim)"
        raise ShapeError(message("local_attention_packed", must, tuple(projected.shape)))
    if not autocasts(projected.device.type):
        inputs = Inputs(*unpack(projected), row_embedding, column_embedding, key_padding_mask)
        return _run_packed(projected, inputs, backend, options)
    with torch.autocast(projected.device.type, enabled=False):
        projected = projected.to(autocast_dtype(projected))
        inputs = _cast(Inputs(*unpack(projected), row_embedding, column_embedding, key_padding_mask))
        return _run_packed(projected, inputs, backend, options)


def attention_weights(
    query: Float[Tensor, "batch height width heads head_dim"],
    key: Float[Tensor, "batch height width heads head_dim"] | None,
    row_embedding: Float[Tensor, "*heads_and_kernel_height half_head_dim"] | None = None,
    column_embedding: Float[Tensor, "*heads_and_kernel_width half_head_dim"] | None = None,
    key_padding_mask: Bool[Tensor, "batch height width"] | None = None,
    **options: Unpack[WindowOptions],
) -> Float[Tensor, "batch height width heads kernel_height kernel_width"]:
    """Return the weights with which `local_attention` would sum the values.

    For pictures and inspection, not for training: it gathers every window (k*k copies of the key).
    The options are kernel_size, dilation, scale and border, as in `local_attention`.

    Returns:
        Weights >= 0 that sum to 1 over the window, in float32 at least. Pixels that are absent have weight
        0; under border "zeros" the pixels outside have the weight that the softmax gives them. A query that
        is padded has weights 0.

    Raises:
        ArgumentError, ShapeError, DtypeError: as `local_attention`.

    Example:
        >>> import torch
        >>> query = torch.zeros(1, 1, 2, 1, 2)
        >>> attention_weights(query, query, kernel_size=(1, 3))[0, 0, :, 0, 0]
        tensor([[0.0000, 0.5000, 0.5000],
                [0.5000, 0.5000, 0.0000]])
    """
    inputs = Inputs(query, key, query, row_embedding, column_embedding, key_padding_mask)
    if not autocasts(query.device.type):
        return _weights(inputs, options)
    with torch.autocast(query.device.type, enabled=False):
        return _weights(_cast(inputs), options)


def explain_backends(
    query: Float[Tensor, "batch height width heads head_dim"],
    key: Float[Tensor, "batch height width heads head_dim"] | None,
    value: Float[Tensor, "batch height width heads value_dim"],
    row_embedding: Float[Tensor, "*heads_and_kernel_height half_head_dim"] | None = None,
    column_embedding: Float[Tensor, "*heads_and_kernel_width half_head_dim"] | None = None,
    key_padding_mask: Bool[Tensor, "batch height width"] | None = None,
    **options: Unpack[WindowOptions],
) -> dict[str, list[str]]:
    """Say for every backend why it cannot run this call; an empty list means that it can.

    Takes the arguments of `local_attention` except `backend`. The backends come in the order in which
    "auto" asks them, so the first with an empty list is the one that "auto" takes.

    Example:
        >>> import torch
        >>> query = torch.zeros(1, 8, 8, 2, 4)
        >>> explain_backends(query, query, query, kernel_size=7)["reference"]
        []
    """
    inputs = Inputs(query, key, value, row_embedding, column_embedding, key_padding_mask)
    if autocasts(query.device.type):
        inputs = _cast(inputs)
    return dispatch.explain(check_call("explain_backends", inputs, **options))


def _run(inputs: Inputs, backend: str, options: WindowOptions) -> Tensor:
    call = check_call("local_attention", inputs, **options)
    return dispatch.choose_backend("local_attention", backend, call).run(inputs, call)


def _run_packed(projected: Tensor, inputs: Inputs, backend: str, options: WindowOptions) -> Tensor:
    call = check_call("local_attention_packed", inputs, **options)
    chosen = dispatch.choose_backend("local_attention_packed", backend, call)
    return (
        chosen.run(inputs, call) if chosen.run_packed is None else chosen.run_packed(projected, inputs, call)
    )


def _weights(inputs: Inputs, options: WindowOptions) -> Tensor:
    call = check_call("attention_weights", inputs, **options)
    weights = reference.window_weights(hide_padding(inputs), call)
    if inputs.key_padding_mask is None:
        return weights
    return weights.masked_fill(inputs.key_padding_mask[..., None, None, None], 0.0)


def _cast(inputs: Inputs) -> Inputs:
    """Give every floating tensor the dtype that autocast asks for."""
    dtype = autocast_dtype(inputs.query)
    return Inputs(
        query=inputs.query.to(dtype),
        key=None if inputs.key is None else inputs.key.to(dtype),
        value=inputs.value.to(dtype),
        row_embedding=None if inputs.row_embedding is None else inputs.row_embedding.to(dtype),
        column_embedding=None if inputs.column_embedding is None else inputs.column_embedding.to(dtype),
        key_padding_mask=inputs.key_padding_mask,
    )
