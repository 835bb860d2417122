"""Vision models that look around instead of convolving: stand-alone self-attention for PyTorch."""

from lookaround.models import create_model, list_models, list_pretrained
from lookaround.nn import AttentionStem, ConvStem, LocalAttention2d
from lookaround.ops import local_attention

__version__ = "0.1.0"

__all__ = [
    "AttentionStem",
    "ConvStem",
    "LocalAttention2d",
    "create_model",
    "list_models",
    "list_pretrained",
    "local_attention",
]
