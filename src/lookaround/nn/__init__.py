"""Layers: attention where a convolution stood, and the stems of the networks."""

from lookaround.nn.drop_path import DropPath
from lookaround.nn.local_attention import LocalAttention2d
from lookaround.nn.stem import AttentionStem, ConvStem

__all__ = ["AttentionStem", "ConvStem", "DropPath", "LocalAttention2d"]
