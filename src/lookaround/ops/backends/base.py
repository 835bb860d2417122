"""What a backend is: a name, a function, and one question."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from lookaround.ops.call import Call, Inputs


@dataclass(frozen=True)
class Backend:
    """One way of computing local attention.

    Attributes:
        name: what the user writes as `backend=`.
        summary: one line for listings.
        run: computes the output from inputs that were checked against the call.
        reasons_against: why this backend cannot serve the call; empty when it can.
        run_packed: `run` for the maps of one projection (`local_attention_packed`), if that saves a copy.
    """

    name: str
    summary: str
    run: Callable[[Inputs, Call], Tensor]
    reasons_against: Callable[[Call], list[str]]
    run_packed: Callable[[Tensor, Inputs, Call], Tensor] | None = None


def hide_padding(inputs: Inputs) -> Inputs:
    """Zero query, key and value in padded pixels, so that whatever they hold can reach no output.

    Even NaN and infinity stay out, of the output and of every gradient.
    """
    if inputs.key_padding_mask is None:
        return inputs
    hidden = inputs.key_padding_mask[..., None, None]
    return inputs._replace(
        query=inputs.query.masked_fill(hidden, 0.0),
        key=None if inputs.key is None else inputs.key.masked_fill(hidden, 0.0),
        value=inputs.value.masked_fill(hidden, 0.0),
    )


def clear_padding(out: Tensor, key_padding_mask: Tensor | None) -> Tensor:
    """Give padded pixels the output zero."""
    return out if key_padding_mask is None else out.masked_fill(key_padding_mask[..., None, None], 0.0)
