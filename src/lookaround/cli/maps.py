"""`lookaround maps`: where a trained network looks in some images, as pictures and as numbers."""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lookaround.cli.maps_files import DISTANCES_NAME, Drawing, describe_layer, draw_mean_distances
from lookaround.cli.predict import printable
from lookaround.errors import ArgumentError, CheckpointError, DataError, message

if TYPE_CHECKING:
    from lookaround.cli.maps_view import Viewer
    from lookaround.explorer import LayerDistances, PixelMaps

HELP = "Where a trained network looks in images: pictures of its attention."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line of `lookaround maps`."""
    parser.add_argument(
        "--weights",
        required=True,
        metavar="RUN",
        help="run folder or its weights.safetensors, or weights that come with the package (digits, …)",
    )
    layers = "attention layers to show, a name or a pattern as 'layer3.*'; may be repeated (all)"
    parser.add_argument("--layer", action="append", metavar="NAME", help=layers)
    heads = "heads to show, counted from 1; may be repeated (all)"
    parser.add_argument("--head", type=int, action="append", metavar="N", help=heads)
    query = "pixel that looks, in pixels of the image file (the one farthest from the mean colour)"
    parser.add_argument("--query", metavar="X,Y", help=query)
    parser.add_argument(
        "--rollout", action="store_true", help="also follow the attention through all layers to the image"
    )
    parser.add_argument("--out", type=Path, default=Path("maps"), metavar="DIR", help="folder (maps)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the files")
    parser.add_argument("--npz", action="store_true", help="also write the numbers of each image as .npz")
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to run (auto)"
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files, or folders to search")


@dataclass
class Report:
    """What was drawn and what was skipped, in the order of the command line."""

    images: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    distances: "list[list[LayerDistances]]" = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)

    def skip(self, path: Path, reason: object) -> None:
        """Note an image that could not be used, and name it on the standard error stream."""
        text = " ".join(line.strip() for line in str(reason).splitlines())
        self.skipped.append({"image": str(path), "reason": text})
        print(f"lookaround maps: skipped {printable(path)}: {printable(text)}", file=sys.stderr)

    def name(self, path: Path) -> str:
        """Name the files of an image after it; with a number where two images have one name."""
        name, number = path.stem, 1
        while name in self.taken:
            number += 1
            name = f"{path.stem}-{number}"
        self.taken.add(name)
        return name


def run(arguments: argparse.Namespace) -> int:
    """Draw, and return 1 where some images were skipped, otherwise 0.

    Raises:
        ArgumentError: an argument cannot be used.
        CheckpointError: the weights cannot be read, or give no numbers.
        DataError: no image was found, or a file cannot be written.
    """
    from lookaround.cli.maps_view import Viewer

    query, report = _check(arguments), Report()
    paths = list(_find(arguments.images, report))
    if not paths:
        hint = "name image files, or folders that hold some (PNG, JPEG, …)."
        raise DataError(message("maps", "there must be at least one image", "none", hint=hint))
    viewer = Viewer.load(arguments.weights, arguments.device)
    _check_layers(viewer, arguments)
    try:
        for path in paths:
            _show(path, viewer, query, arguments, report)
        distances = []
        if report.distances:
            report.files.append(arguments.out / DISTANCES_NAME)
            distances = draw_mean_distances(report.distances, report.files[-1])
    except OSError as error:
        raise DataError(message("maps", "--out must be writable", f"{arguments.out} ({error})")) from error
    if arguments.json:
        files = [str(file) for file in report.files]
        document = {"images": report.images, "skipped": report.skipped, "files": files}
        print(json.dumps({**document, "distances": distances}))
    else:
        for file in report.files:
            print(printable(file))
    return 1 if report.skipped else 0


def _check(arguments: argparse.Namespace) -> tuple[int, int] | None:
    """Refuse what no weights can serve; return the query."""
    if arguments.out.exists() and not arguments.out.is_dir():
        raise ArgumentError(message("maps", "--out must be a folder", f"the file {arguments.out}"))
    if arguments.query is None:
        return None
    found = re.fullmatch(r"(\d+)\s*,\s*(\d+)", arguments.query)
    if found is None:
        hint = "as in --query 120,80."
        must = "--query must be a column and a row, two whole numbers"
        raise ArgumentError(message("maps", must, repr(arguments.query), hint=hint))
    return int(found[1]), int(found[2])


def _check_layers(viewer: "Viewer", arguments: argparse.Namespace) -> None:
    from lookaround.explorer.recording import choose_attention

    layers = choose_attention("maps", viewer.model, arguments.layer).values()
    most = max(int(getattr(layer, "num_heads", 1)) for layer in layers)
    for head in arguments.head if arguments.head is not None else ():
        if not 1 <= head <= most:
            raise ArgumentError(message("maps", f"--head must be from 1 to {most}", head))


def _find(names: Sequence[str], report: Report) -> Iterator[Path]:
    from lookaround.data.images import find_images

    for path in map(Path, names):
        found = list(find_images(path)) if path.is_dir() else [path]
        if not found:
            report.skip(path, "the folder holds no images")
        yield from found


def _show(
    path: Path,
    viewer: "Viewer",
    query: tuple[int, int] | None,
    arguments: argparse.Namespace,
    report: Report,
) -> None:
    """Draw one image and note it; skip it if it cannot be read, or has not the query."""
    from lookaround.data.images import open_image
    from lookaround.explorer import attention_distances, attention_of_pixels
    from lookaround.explorer.panels import as_picture, most_salient

    try:
        picture = open_image(path)
        pixel = None if query is None else viewer.locate(*query, picture.size)
    except (DataError, ArgumentError) as error:
        report.skip(path, error)
        return
    image = viewer.prepare(picture)
    batch, shown = viewer.batch(image), as_picture(image)
    pixel = most_salient(shown) if pixel is None else pixel
    maps = attention_of_pixels(viewer.model, batch, [pixel], layers=arguments.layer)
    _check_numbers(maps)
    report.distances.append(attention_distances(viewer.model, batch, layers=arguments.layer))
    drawing = Drawing(report.name(path), shown, pixel, arguments)
    drawing.draw_weights(maps)
    rollouts = drawing.draw_rollouts(viewer, batch) if arguments.rollout else []
    if arguments.npz:
        drawing.write_arrays(maps, rollouts)
    place = {"image_size": list(image.shape[-2:]), "row": pixel[0], "column": pixel[1]}
    layers = [describe_layer(layer, arguments.head) for layer in maps]
    files = [str(file) for file in drawing.files]
    report.files += drawing.files
    report.images.append({"image": str(path), "query": place, "files": files, "layers": layers})


def _check_numbers(maps: "Sequence[PixelMaps]") -> None:
    import numpy as np

    if not all(np.isfinite(layer.weights).all() for layer in maps):
        hint = "take weights of a run that did not diverge."
        must = "the network must give finite numbers"
        raise CheckpointError(message("maps", must, "NaN or infinity", hint=hint))
