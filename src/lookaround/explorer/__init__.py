"""Where a network looks: as plain arrays, and as pictures."""

from lookaround.explorer.attention_maps import LayerMaps, PixelMaps, attention_maps, attention_of_pixels
from lookaround.explorer.distance import LayerDistances, attention_distances
from lookaround.explorer.distance_figure import draw_distances
from lookaround.explorer.figures import draw_attention_maps, draw_pixel_maps
from lookaround.explorer.rollout import Rollout, attention_rollout
from lookaround.explorer.rollout_figure import draw_rollout

__all__ = [
    "LayerDistances",
    "LayerMaps",
    "PixelMaps",
    "Rollout",
    "attention_distances",
    "attention_maps",
    "attention_of_pixels",
    "attention_rollout",
    "draw_attention_maps",
    "draw_distances",
    "draw_pixel_maps",
    "draw_rollout",
]
