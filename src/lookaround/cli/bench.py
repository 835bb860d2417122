"""`lookaround bench`: measure on this machine, side by side; a table, a record and a picture."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HELP = "Measure operator, layers and networks against what they replace, on this machine."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the suite and how to measure."""
    from lookaround.studies.benchmark import SUITES

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "suites:\n" + "\n".join(f"  {name:<9} {text}" for name, text in SUITES.items())
    parser.add_argument("suite", choices=list(SUITES), help="what to measure")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (cpu)")
    parser.add_argument("--dtype", help="float32, bfloat16 or float16 (what the suite is about)")
    parser.add_argument("--threads", type=int, metavar="N", help="of torch (as many as it would take)")
    parser.add_argument("--repeats", type=int, metavar="N", help="samples of each contestant (7; CUDA 50)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="images (the suite's)")
    parser.add_argument(
        "--image-size", type=int, metavar="N", help="pixels a side, of network and detection (the suite's)"
    )
    parser.add_argument(
        "--compile", action="store_true", help="networks under torch.compile too; minutes more"
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to see that it runs; no real figures"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the record, and the tables beside it")
    parser.add_argument("--chart", type=Path, metavar="OUT.png", help="draw the figures")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print the tables, write what was asked for.

    Raises:
        ArgumentError: an argument cannot be used.
        UnsupportedCallError: there is no such device.
        BackendError: contestants that should agree do not.
    """
    from lookaround.studies.bench_context import Settings
    from lookaround.studies.benchmark import run_suite, write_results

    check_paths(arguments.json, arguments.chart)
    # The profiler, which counts memory, would log its own start and stop between our lines.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    settings = Settings(
        device=arguments.device,
        dtype=arguments.dtype,
        threads=arguments.threads,
        repeats=arguments.repeats,
        batch_size=arguments.batch_size,
        image_size=arguments.image_size,
        quick=arguments.quick,
        compile=arguments.compile,
    )
    with progress(sys.stderr.isatty()) as tick:
        results = run_suite(arguments.suite, settings, tick)
    print(results.markdown())
    written = [] if arguments.json is None else write_results(results, arguments.json)
    if arguments.chart is not None:
        from lookaround.studies.benchmark import describe_conditions
        from lookaround.studies.charts import draw_panels

        written.append(draw_panels(results.panels, arguments.chart, describe_conditions(results.record)))
    print("".join(f"\n{path}" for path in written), file=sys.stderr, end="\n" if written else "")
    return 0


def check_paths(record: Path | None, chart: Path | None) -> None:
    """Refuse paths that cannot be written, before minutes of measuring.

    Raises:
        ArgumentError: a path has another ending, or is a folder, or its parent is a file.
    """
    check_file("bench", "--json", record, ".json")
    check_file("bench", "--chart", chart, ".png")


def check_file(where: str, option: str, path: Path | None, ending: str) -> None:
    """Refuse a path that cannot be written.

    Args:
        where: the command that complains.
        option: what the user has given the path to.
        path: None where the option was not given.
        ending: that the path must have.

    Raises:
        ArgumentError: the path has another ending, or is a folder, or its parent is a file.
    """
    from lookaround.errors import ArgumentError, message

    if path is None:
        return
    if path.suffix != ending:
        raise ArgumentError(message(where, f"{option} must end in {ending}", path))
    existing = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not existing.is_dir():
        raise ArgumentError(message(where, f"{option} must be a file in a folder", path))


@contextmanager
def progress(shown: bool) -> Iterator[Callable[[str, str, int], None]]:
    """Give a function that is told each step; on a terminal it moves a bar, one for each group."""
    if not shown:
        yield lambda group, name, steps: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, tuple[TaskID, int]] = {}

        def tick(group: str, name: str, steps: int) -> None:
            if group not in tasks:
                tasks[group] = (bar.add_task(group, total=steps), 0)
            task, done = tasks[group]
            tasks[group] = (task, done + 1)
            bar.update(task, completed=done + 1, description=f"{group}: {name}")

        yield tick
