"""`lookaround paper run`: train the rows of the paper's tables."""

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lookaround.studies.paper_jobs import Data, Request
    from lookaround.studies.paper_run import Engine

HELP = (
    "Train every row of the tables named, with several seeds. Each training is a run folder; what is "
    "finished is never run again, and the same command goes on after a stop."
)
LIMITS = ("epochs", "images_per_epoch", "images_to_measure")
OF_RAY = ("address", "cpus_per_run", "gpus_per_run")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the tables, the scale, the data and the machine."""
    tables = "table1 … table7, figure5, border, beyond, or all"
    parser.add_argument("tables", nargs="+", metavar="TABLE", help=tables)
    parser.add_argument(
        "--scale", default="small", metavar="NAME", help="paper: as printed; small: minutes a network (small)"
    )
    parser.add_argument(
        "--data",
        default="fashion-mnist",
        metavar="DATA",
        help="fashion-mnist, digits, or a folder of images (fashion-mnist)",
    )
    parser.add_argument(
        "--detection-data",
        default="scenes",
        metavar="DATA",
        help="for table2: scenes, made in data/scenes if need be, or a folder in COCO's format (scenes)",
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 0 … N-1 (3)")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="trainings at a time (1; with Ray as many as fit)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/paper"), metavar="DIR", help="runs and results (runs/paper)"
    )
    for name in LIMITS:
        text = f"set the scale's {name.replace('_', ' ')}, to try things out"
        parser.add_argument(f"--limit-{name.replace('_', '-')}", type=int, metavar="N", help=text)
    _add_engine(parser)


def _add_engine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "many machines", "They must share the folders of data and results, at the same paths."
    )
    group.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="processes here, or a Ray cluster (local)"
    )
    group.add_argument(
        "--address", metavar="HOST:PORT", help="of the Ray cluster, or auto (Ray is started on this machine)"
    )
    for kind, default in (("cpus", 1), ("gpus", 0)):
        text = f"{kind[:-1].upper()}s that Ray gives to each training ({default})"
        group.add_argument(f"--{kind}-per-run", type=float, metavar="N", help=text)


def run(arguments: argparse.Namespace) -> int:
    """Train what is not done yet.

    Returns:
        0, or 1 if a training failed.

    Raises:
        LookaroundError: an argument cannot be used.
        KeyboardInterrupt: the user stopped it.
    """
    from lookaround.studies.paper_plan import choose_experiments
    from lookaround.studies.paper_run import Study

    study = Study(arguments.out, choose_experiments(arguments.tables), _request(arguments), say=_say)
    try:
        # Ray listens to SIGTERM from its start on: what comes later wins.
        with _engine(arguments) as engine, _stopped_by_termination():
            study.run(1 if arguments.workers is None else arguments.workers, engine)
    except KeyboardInterrupt:
        print(
            f"stopped; {len(study.finished)} trainings are done. The same command goes on from there.",
            file=sys.stderr,
        )
        raise
    print(f"results: {arguments.out / 'results.json'}")
    for name, error in study.failed.items():
        print(f"failed: {name}: {error.strip().splitlines()[0]}", file=sys.stderr)
    return 1 if study.failed else 0


@contextmanager
def _engine(arguments: argparse.Namespace) -> Iterator["Engine | None"]:
    """Give what makes those who train; None: processes of this machine."""
    from lookaround.errors import ConfigError, message

    given = {name: value for name in OF_RAY if (value := getattr(arguments, name)) is not None}
    if arguments.engine == "local":
        for name in given:
            option = f"--{name.replace('_', '-')}"
            must = f"{option} must go with --engine ray"
            raise ConfigError(message("paper run", must, "--engine local", hint=f"leave out {option}."))
        yield None
        return
    from lookaround.studies.paper_ray import RayCrew, ray_cluster

    address = given.pop("address", None)
    needed = {name.removesuffix("_per_run"): number for name, number in given.items()}
    with ray_cluster(address):
        yield partial(RayCrew, **needed, at_once=arguments.workers, say=_say)


@contextmanager
def _stopped_by_termination() -> Iterator[None]:
    """Take SIGTERM for Ctrl-C: a command begun in the background hears nothing else."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(text: str) -> None:
    print(text, flush=True)


def _request(arguments: argparse.Namespace) -> "Request":
    from lookaround.studies.paper_jobs import Request

    limits = {name: getattr(arguments, f"limit_{name}") for name in LIMITS}
    return Request(
        scale=arguments.scale,
        data=_data(arguments.data),
        detection_data=_detection_data(arguments.detection_data),
        seeds=arguments.seeds,
        limits=tuple((name, value) for name, value in limits.items() if value is not None),
    )


def _data(name: str) -> "Data":
    from lookaround.studies.paper_jobs import Data

    if name in ("fashion-mnist", "fashion_mnist", "digits"):
        return Data(name.replace("-", "_"))
    return Data("folder", name)


def _detection_data(name: str) -> "Data":
    from lookaround.studies.paper_jobs import Data

    return Data("scenes", "data/scenes") if name == "scenes" else Data("coco", name)
