"""Scenes that a recipe asks for: written when a run needs them and they are not there."""

import logging
from dataclasses import dataclass
from pathlib import Path

from lookaround.data.cutouts import load_pools
from lookaround.data.scene_files import split_sizes, write_scenes
from lookaround.data.scenes import SceneSettings

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScenesToMake:
    """What `lookaround data scenes` is told, as a part of a recipe.

    Args:
        images: how many scenes, for training, validation and test together.
        seed: another one makes other scenes.
        source: where the objects come from, "digits" or "fashion-mnist".
        image_size: side of a picture, in pixels.
        smallest: longer side of the smallest objects, in pixels.
        largest: of the largest ones.
        most_objects: a scene has from 1 up to as many.
        clutter: a scene has from 0 up to as many fragments that are no objects.
        download: whether the source may be downloaded.

    Raises:
        ArgumentError: the numbers do not fit together.
    """

    images: int = 1000
    seed: int = 0
    source: str = "digits"
    image_size: int = SceneSettings.image_size
    smallest: int = SceneSettings.smallest
    largest: int = SceneSettings.largest
    most_objects: int = SceneSettings.most_objects
    clutter: int = SceneSettings.clutter
    download: bool = True

    def __post_init__(self) -> None:
        split_sizes(self.images)
        self.settings()

    def settings(self) -> SceneSettings:
        """What the scenes look like."""
        return SceneSettings(self.image_size, self.smallest, self.largest, self.most_objects, self.clutter)

    def write(self, out: Path) -> None:
        """Write the scenes into a folder that is not there yet.

        Raises:
            DataError: the objects are not to be had, or the folder cannot be written.
        """
        LOGGER.info("writing %d scenes into %s", self.images, out)
        pools = load_pools(self.source, None, self.download)
        write_scenes(out, pools, self.images, self.settings(), self.seed)
