"""`lookaround data`: make sets of images to train on."""

import argparse
import sys
from pathlib import Path

HELP = "Make sets of images to train on. `scenes`: pictures with objects and their boxes, to learn detection."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the kinds of sets, and what each can be told."""
    from lookaround.data.cutouts import SOURCES
    from lookaround.data.scenes import SceneSettings

    default = SceneSettings()
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    text = "scenes composed of real cut-outs, as PNG and COCO json"
    scenes = kinds.add_parser("scenes", help=text, description=f"Write {text}.")
    scenes.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write, a new one")
    scenes.add_argument(
        "--images", type=int, required=True, metavar="N", help="scenes: 70 %% train, 15 %% val, 15 %% test"
    )
    scenes.add_argument("--seed", type=int, default=0, metavar="S", help="the same S, the same bytes (0)")
    scenes.add_argument(
        "--source", choices=SOURCES, default="digits", help="where objects come from (digits)"
    )
    scenes.add_argument(
        "--image-size", type=int, default=default.image_size, metavar="PX", help="side of a picture (128)"
    )
    scenes.add_argument(
        "--object-sizes",
        type=int,
        nargs=2,
        default=(default.smallest, default.largest),
        metavar=("MIN", "MAX"),
        help="longer sides of the objects in pixels (16 64)",
    )
    scenes.add_argument(
        "--objects", type=int, default=default.most_objects, metavar="N", help="at most in a scene (6)"
    )
    scenes.add_argument(
        "--clutter", type=int, default=default.clutter, metavar="N", help="fragments at most in a scene (6)"
    )
    scenes.add_argument("--root", metavar="DIR", help="where Fashion-MNIST is kept (data)")


def run(arguments: argparse.Namespace) -> int:
    """Write the set and say what is in it.

    Raises:
        ArgumentError: an argument cannot be used, or the folder holds something.
        DataError: the objects are not to be had, or the folder cannot be written.
    """
    from lookaround.cli.bench import progress
    from lookaround.data.cutouts import load_pools
    from lookaround.data.scene_files import refuse_if_occupied, split_sizes, write_scenes
    from lookaround.data.scenes import SceneSettings

    smallest, largest = arguments.object_sizes
    settings = SceneSettings(arguments.image_size, smallest, largest, arguments.objects, arguments.clutter)
    sizes = split_sizes(arguments.images)
    refuse_if_occupied(arguments.out)  # before anything is downloaded
    pools = load_pools(arguments.source, arguments.root)
    with progress(sys.stderr.isatty()) as tick:
        out = write_scenes(arguments.out, pools, arguments.images, settings, arguments.seed, tick)
    print(f"{out}: {', '.join(f'{number} {part}' for part, number in sizes.items())}")
    return 0
