"""The files that `lookaround maps` leaves: pictures and numbers of one image, distances of all."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lookaround.cli.predict import printable

if TYPE_CHECKING:
    from torch import Tensor

    from lookaround.cli.maps_view import Viewer
    from lookaround.explorer import LayerDistances, PixelMaps, Rollout

MOST_LAYERS = 12  # in one picture
DISTANCES_NAME = "distances.png"
STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")


@dataclass
class Drawing:
    """The files of one image.

    Attributes:
        name: how they begin.
        picture: what the network is shown.
        pixel: row and column of the query in it.
        arguments: of the command line.
        files: those that were written.
    """

    name: str
    picture: Any
    pixel: tuple[int, int]
    arguments: argparse.Namespace
    files: list[Path] = field(default_factory=list)

    def draw_weights(self, maps: "Sequence[PixelMaps]") -> None:
        """Draw the weights of every layer and head, some layers in one picture."""
        from lookaround.explorer.figures import draw_pixel_maps

        heads = None if self.arguments.head is None else [head - 1 for head in self.arguments.head]
        for page, first in enumerate(range(0, len(maps), MOST_LAYERS)):
            suffix = f"-{page + 1}" if page > 0 else ""
            shown = (self.picture, maps[first : first + MOST_LAYERS], self._title())
            file = self.arguments.out / f"{self.name}_weights{suffix}.png"
            self.files.append(draw_pixel_maps([shown], file, heads=heads))

    def draw_rollouts(self, viewer: "Viewer", batch: "Tensor | list[Tensor]") -> "list[Rollout]":
        """Draw where the query and the mean of all pixels come from, for maps of every depth."""
        from lookaround.explorer import attention_rollout
        from lookaround.explorer.rollout_figure import draw_rollout

        queries = [self.pixel, None]
        rollouts = attention_rollout(viewer.model, batch, queries, layers=_depths(viewer))
        file = self.arguments.out / f"{self.name}_rollout.png"
        self.files.append(draw_rollout(self.picture, rollouts, queries, file, title=self._title()))
        return rollouts

    def write_arrays(self, maps: "Sequence[PixelMaps]", rollouts: "Sequence[Rollout]") -> None:
        """Write the numbers that were drawn."""
        import numpy as np

        from lookaround.training.files import replacing

        arrays = {}
        for layer in maps:
            number = f"/{layer.call + 1}" if layer.call > 0 else ""
            arrays[f"weights/{layer.name}{number}"] = layer.weights[0, 0]
            arrays[f"query/{layer.name}{number}"] = layer.queries[0]
        for rollout in rollouts:
            arrays[f"rollout/{rollout.layer}"] = rollout.shares[0]
        file = self.arguments.out / f"{self.name}.npz"
        with replacing(file) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, **arrays)
        self.files.append(file)

    def _title(self) -> str:
        height, width = self.picture.shape[:2]
        seen = f"as the network sees it, {width}x{height}"
        return f"{printable(self.name)}, {seen}; query at column {self.pixel[1]}, row {self.pixel[0]}"


def _depths(viewer: "Viewer") -> list[str]:
    """Name the maps whose rollout is drawn: every stage, and a detector's finest level."""
    from lookaround.models import RetinaNetConfig

    config = viewer.model.config
    if not isinstance(config, RetinaNetConfig):
        return list(STAGES)
    level = f"p{config.levels[0]}"
    return [*STAGES, level, f"classes.{level}", f"boxes.{level}"]


def describe_layer(layer: "PixelMaps", heads: list[int] | None) -> dict[str, Any]:
    """Put the weights of some heads, counted from 1, into what JSON can hold."""
    chosen = range(layer.weights.shape[2]) if heads is None else [head - 1 for head in heads]
    shown = [head for head in chosen if head < layer.weights.shape[2]]
    return {
        "name": layer.name,
        "call": layer.call,
        "size": list(layer.size),
        "stride": list(layer.stride),
        "dilation": list(layer.dilation),
        "query": layer.queries[0].tolist(),
        "heads": [head + 1 for head in shown],
        "weights": [layer.weights[0, 0, head].tolist() for head in shown],
    }


def draw_mean_distances(images: "Sequence[Sequence[LayerDistances]]", file: Path) -> list[dict[str, Any]]:
    """Draw how far each head looks, and return it as JSON can hold it."""
    from lookaround.explorer.distance import mean_distances
    from lookaround.explorer.distance_figure import draw_distances

    count, layers = len(images), mean_distances(images)
    title = f"How far each head looks, mean over {count} image{'s' if count > 1 else ''}"
    draw_distances(layers, file, title=title)
    return [
        {
            "name": layer.name,
            "call": layer.call,
            "stride": list(layer.stride),
            "on_map": layer.on_map.tolist(),
            "on_image": layer.on_image.tolist(),
            "offset": layer.offset.tolist(),
            "by_position": None if layer.by_position is None else layer.by_position.tolist(),
            "uniform": layer.uniform,
        }
        for layer in layers
    ]
