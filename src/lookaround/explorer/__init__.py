"""Where a network looks: as plain arrays, and as pictures."""

from lookaround.explorer.attention_maps import LayerMaps, attention_maps
from lookaround.explorer.figures import draw_attention_maps

__all__ = ["LayerMaps", "attention_maps", "draw_attention_maps"]
