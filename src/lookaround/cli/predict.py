"""`lookaround predict`: what a trained network sees in some images."""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from lookaround.errors import ArgumentError, CheckpointError, DataError, message

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

    from lookaround.cli.predict_boxes import Detector
    from lookaround.models.checkpoint import ModelRecord
    from lookaround.models.retinanet import RetinaNet

HELP = "What a trained network sees in images: files, or folders to search."
MOST_CLASSES = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line of `lookaround predict`."""
    parser.add_argument(
        "--weights",
        metavar="RUN",
        help="run folder or its weights.safetensors, or weights that come with the package (digits, …)",
    )
    parser.add_argument("--top", type=int, metavar="N", help="classes to show, for a classifier (5)")
    parser.add_argument("--score", type=float, metavar="P", help="least score of a box, for a detector (0.5)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="pictures with boxes and COCO json there, for a detector"
    )
    parser.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="images at a time (default 32)"
    )
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to run (auto)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files, or folders to search")


@dataclass
class Report:
    """What was predicted and what was skipped, in the order of the command line; files that were written."""

    images: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    def skip(self, path: Path, reason: str) -> None:
        """Note an image that could not be used, and name it on the standard error stream."""
        self.skipped.append({"image": str(path), "reason": reason})
        print(f"lookaround predict: skipped {printable(path)}: {printable(reason)}", file=sys.stderr)


def run(arguments: argparse.Namespace) -> int:
    """Predict and print; return 1 where some images were skipped, otherwise 0.

    Raises:
        ArgumentError: a number is out of range, or there is no such device.
        CheckpointError: the weights cannot be read, or give no numbers.
        DataError: no image was found.
    """
    _check(arguments)
    report = Report()
    paths = list(_find(arguments.images, report))
    if not paths:
        hint = "name image files, or folders that hold some (PNG, JPEG, …)."
        raise DataError(message("predict", "there must be at least one image", "none", hint=hint))
    _predict(paths, arguments, report)
    if arguments.json:
        print(json.dumps({"images": report.images, "skipped": report.skipped}, indent=2))
    else:
        _print_table(report)
    if report.skipped:
        total = len(report.images) + len(report.skipped)
        print(f"lookaround predict: {len(report.skipped)} of {total} skipped", file=sys.stderr)
    return 1 if report.skipped else 0


def printable(text: object) -> str:
    """Return a file's name with what a terminal would obey or could not print written as escapes."""
    clean = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    return clean.encode(sys.stdout.encoding or "utf-8", "backslashreplace").decode(
        sys.stdout.encoding or "utf-8"
    )


def _check(arguments: argparse.Namespace) -> None:
    for name in ("top", "batch_size"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            must = f"--{name.replace('_', '-')} must be at least 1"
            raise ArgumentError(message("predict", must, value))


def _find(names: Sequence[str], report: Report) -> Iterator[Path]:
    from lookaround.data.images import find_images

    for path in map(Path, names):
        if not path.is_dir():
            yield path
            continue
        found = list(find_images(path))
        if not found:
            report.skip(path, "the folder holds no images")
        yield from found


def _predict(paths: Sequence[Path], arguments: argparse.Namespace, report: Report) -> None:
    from lookaround.models import RetinaNetConfig
    from lookaround.models.checkpoint import load_model

    model, record = load_model(_weights(arguments.weights))
    if isinstance(getattr(model, "config", None), RetinaNetConfig):
        from lookaround.cli.predict_boxes import Detector

        _refuse(arguments, ("top",), "detector")
        detector = Detector.of(cast("RetinaNet", model), record, _device(arguments.device), arguments)
        _detect(detector, paths, arguments, report)
        return
    _refuse(arguments, ("score", "out"), "classifier")
    _classify(model, record, paths, arguments, report)


def _weights(chosen: str | None) -> str:
    """Return what `--weights` says, or else the first weights that come with the package, and say so.

    Raises:
        ArgumentError: nothing is said, and no weights come with the package.
    """
    from lookaround.models import list_pretrained

    if chosen is not None:
        return chosen
    shipped = list_pretrained()
    if not shipped:
        must = "--weights must name a run folder"
        raise ArgumentError(message("predict", must, "nothing", hint="train one: `lookaround fit`."))
    tag = next(iter(shipped))
    others = f"the package has {', '.join(shipped)}" if len(shipped) > 1 else "a run folder can be named too"
    print(f"lookaround predict: taking --weights {tag} ({shipped[tag]}); {others}", file=sys.stderr)
    return tag


def _classify(
    model: "nn.Module",
    record: "ModelRecord",
    paths: Sequence[Path],
    arguments: argparse.Namespace,
    report: Report,
) -> None:
    from lookaround.data.preprocessing import Preprocessing

    try:
        transform = Preprocessing.from_dict(record.preprocessing).evaluation()
    except ArgumentError as error:
        must = "the weights' record must say how images are prepared"
        raise CheckpointError(message("predict", must, f"this: {error}")) from error
    if not all(isinstance(name, str) for name in record.class_names):
        must = "the weights' record must list the names of the classes"
        raise CheckpointError(message("predict", must, f"{record.class_names!r:.80}"))
    top = MOST_CLASSES if arguments.top is None else arguments.top
    network = Network(model, record.class_names, _device(arguments.device), top)
    for images, tensors in _batches(paths, transform, arguments.batch_size, report):
        for path, predictions in zip(images, network.predict(tensors), strict=True):
            report.images.append({"image": str(path), "predictions": predictions})


def _detect(
    detector: "Detector", paths: Sequence[Path], arguments: argparse.Namespace, report: Report
) -> None:
    for images, seen in _batches(paths, detector.prepare, arguments.batch_size, report):
        report.images += detector.predict(images, seen)
    report.files = detector.finish()


def _refuse(arguments: argparse.Namespace, names: Sequence[str], kind: str) -> None:
    given = [f"--{name}" for name in names if getattr(arguments, name) is not None]
    if given:
        must = f"{' and '.join(given)} must be left out for weights of a {kind}"
        raise ArgumentError(message("predict", must, f"weights of a {kind}"))


Prepared = TypeVar("Prepared")


def _batches(
    paths: Sequence[Path], transform: "Callable[[Image], Prepared]", batch_size: int, report: Report
) -> "Iterator[tuple[list[Path], list[Prepared]]]":
    from lookaround.data.images import open_image

    batch: list[tuple[Path, Prepared]] = []
    for path in paths:
        try:
            batch.append((path, transform(open_image(path))))
        except DataError as error:
            report.skip(path, " ".join(line.strip() for line in str(error).splitlines()))
        if len(batch) == batch_size:
            yield _apart(batch)
            batch = []
    if batch:
        yield _apart(batch)


def _apart(batch: "list[tuple[Path, Prepared]]") -> "tuple[list[Path], list[Prepared]]":
    return [path for path, _ in batch], [prepared for _, prepared in batch]


class Network:
    """A trained network on a device, with the names of its classes."""

    def __init__(self, model: "nn.Module", class_names: Sequence[str], device: str, top: int) -> None:
        import torch

        self.model = model.eval().to(device).to(memory_format=torch.channels_last)
        self.class_names = class_names
        self.device = device
        self.top = top

    def predict(self, images: "Sequence[Tensor]") -> list[list[dict[str, Any]]]:
        """Return, for each image, the likeliest classes with their probabilities, likeliest first."""
        import torch

        batch = torch.stack(list(images)).to(self.device, memory_format=torch.channels_last)
        with torch.inference_mode():
            probabilities = self.model(batch).float().softmax(1).cpu()
        if not torch.isfinite(probabilities).all():
            hint = "take weights of a run that did not diverge."
            must = "the network must give finite numbers"
            raise CheckpointError(message("predict", must, "NaN or infinity", hint=hint))
        values, labels = probabilities.topk(min(self.top, probabilities.shape[1]))
        return [
            [
                {"label": self._name(int(i)), "probability": float(p)}
                for p, i in zip(row, columns, strict=True)
            ]
            for row, columns in zip(values, labels, strict=True)
        ]

    def _name(self, label: int) -> str:
        return self.class_names[label] if label < len(self.class_names) else f"class {label}"


def _device(name: str) -> str:
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        must = "--device cuda must be a device that is there"
        raise ArgumentError(message("predict", must, "no CUDA device", hint="try --device cpu."))
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _print_table(report: Report) -> None:
    if not report.images:
        return
    if sys.stdout.isatty():
        _print_rich(report)
    else:
        _print_plain(report)
    for file in report.files:
        print(printable(file))


def _print_plain(report: Report) -> None:
    cells = [(row["image"], list(_cells(row))) for row in report.images]
    width = max((len(label) for _, lines in cells for label, _ in lines), default=0)
    for image, lines in cells:
        print(printable(image))
        for label, value in lines:
            print(f"  {label:<{width}}  {value}".rstrip())


def _cells(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What to print of an image: class and probability, or class, score and box."""
    for entry in row.get("predictions", ()):
        yield printable(entry["label"]), _percent(entry["probability"])
    for entry in row.get("detections", ()):
        x1, y1, x2, y2 = (round(corner) for corner in entry["box"])
        yield printable(entry["label"]), f"{_percent(entry['score'])}  {x1},{y1} to {x2},{y2}"
    if row.get("detections") == []:
        yield "nothing found", ""


def _print_rich(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("image", "class")
    table.add_column("score and box" if "detections" in report.images[0] else "probability", justify="right")
    for row in report.images:
        for rank, (label, value) in enumerate(_cells(row)):
            name = printable(row["image"]) if rank == 0 else ""
            style = "bold" if rank == 0 else ""
            table.add_row(*(Text(cell) for cell in (name, label, value)), style=style)
        table.add_section()
    Console().print(table)


def _percent(probability: float) -> str:
    return f"{math.floor(probability * 1000 + 0.5) / 10:5.1f} %"
