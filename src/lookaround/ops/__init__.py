"""The operator: tensors in, tensor out. Knows torch only."""

from lookaround.ops.block_attention import block_attention
from lookaround.ops.dispatch import list_backends
from lookaround.ops.local_attention import (
    attention_weights,
    explain_backends,
    local_attention,
    local_attention_packed,
)

__all__ = [
    "attention_weights",
    "block_attention",
    "explain_backends",
    "list_backends",
    "local_attention",
    "local_attention_packed",
]
