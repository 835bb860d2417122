"""Layers: attention where a convolution stood, and the stems of the networks."""

from lookaround.nn.conversion_report import ConversionReport
from lookaround.nn.convert import replace_convolutions
from lookaround.nn.drop_path import DropPath
from lookaround.nn.flops import count_flops
from lookaround.nn.local_attention import LocalAttention2d
from lookaround.nn.stem import AttentionStem, ConvStem

__all__ = [
    "AttentionStem",
    "ConvStem",
    "ConversionReport",
    "DropPath",
    "LocalAttention2d",
    "count_flops",
    "replace_convolutions",
]
