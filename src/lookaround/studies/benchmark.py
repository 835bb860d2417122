"""The benchmark: six suites, one method, one form of results.

Every suite times its contestants side by side in one process, taking turns, after having checked that those
which compute the same function agree. Ratios come first, for they hold on other machines too.
"""

import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from lookaround.errors import ArgumentError, message
from lookaround.studies.bench_context import Bench, Settings, using_threads
from lookaround.studies.bench_tables import Panel, Table
from lookaround.training.environment import describe_environment
from lookaround.training.files import write_json, write_text

SUITES = {
    "layer": "operator and whole layer against the 3x3 convolution, at the four sizes of ResNet-50",
    "network": "attention networks against torchvision's resnet50: inference and a training step",
    "detection": "detectors of the paper's Table 2 against torchvision's RetinaNet: images a second, memory",
    "memory": "peak memory of the operator's backends, and of a training step of the networks",
    "scaling": "cost against image size, window and batch",
    "peers": "other ways to compute the same function, and layers that stand in the same place",
}
SIZED = ("network", "detection")  # suites whose images can be of another size


@dataclass(frozen=True)
class Results:
    """What a suite found.

    Attributes:
        suite: its name.
        tables: what to read, ratios first.
        panels: what to draw.
        record: everything, as JSON holds it.
    """

    suite: str
    tables: list[Table]
    panels: list[Panel]
    record: dict[str, Any]

    def markdown(self) -> str:
        """Tables, what was left out, and on what it was measured."""
        parts = [table.markdown() for table in self.tables]
        parts += ["Left out:\n\n" + "\n".join(f"- {note}" for note in self.record["notes"])] * bool(
            self.record["notes"]
        )
        return "\n\n".join([*parts, describe_conditions(self.record)])


def run_suite(
    suite: str, settings: Settings, tick: Callable[[str, str, int], None] = lambda group, name, steps: None
) -> Results:
    """Run one suite.

    Args:
        suite: a name of `SUITES`.
        settings: what the user chose.
        tick: told the group, the contestant and how many steps the group has, before each step.

    Raises:
        ArgumentError: a setting cannot be used.
        UnsupportedCallError: this machine has no such device.
        BackendError: two contestants that should agree do not.
    """
    settings.check()
    if settings.image_size is not None and suite not in SIZED:
        must = f"--image-size must be left to the suites {' and '.join(SIZED)}"
        raise ArgumentError(message("bench", must, f"it for {suite}"))
    module: ModuleType = importlib.import_module(f"lookaround.studies.bench_{suite}")
    with using_threads(settings.threads), torch.random.fork_rng():
        torch.manual_seed(0)
        bench = Bench(settings, tick)
        tables, panels = module.run(bench)
        record = {
            "suite": suite,
            "settings": asdict(settings) | {"repeats": bench.repeats, "threads": torch.get_num_threads()},
            "environment": describe_environment(),
            "tables": [table.as_json() for table in tables],
            "measurements": bench.measurements,
            "notes": bench.notes,
        }
    return Results(suite, [*tables, measurements_table(bench)], panels, record)


def measurements_table(bench: Bench) -> Table:
    """Absolute times and their spread, of everything that was timed."""
    columns = {"group": "", "contestant": "", "ms": ".3f", "middle half": "", "range": "", "GFLOP/s": ".1f"}
    table = Table("Every measurement: milliseconds of a call", columns)
    for row in bench.measurements:
        low, high = row["lower_quartile_seconds"] * 1e3, row["upper_quartile_seconds"] * 1e3
        least, most = row["minimum_seconds"] * 1e3, row["maximum_seconds"] * 1e3
        rate = row.get("flops_per_second")
        table.rows.append(
            {
                "group": row["group"],
                "contestant": row["contestant"],
                "ms": row["median_seconds"] * 1e3,
                "middle half": f"{low:.3f} to {high:.3f}",
                "range": f"{least:.3f} to {most:.3f}",
                "GFLOP/s": None if rate is None else rate / 1e9,
            }
        )
    return table


def describe_conditions(record: dict[str, Any]) -> str:
    """Say in a few words what was measured, how, where, and with which code."""
    environment, settings = record["environment"], record["settings"]
    cpu, gpus = environment["cpu"], environment["gpus"]
    on_gpu = settings["device"] != "cpu"
    hardware = gpus[0]["name"] if on_gpu and gpus else f"{cpu['model']} ({cpu['torch_instruction_set']})"
    commit = "unknown" if environment["commit"] is None else environment["commit"]
    dtype = "" if settings["dtype"] is None else f", {settings['dtype']}"
    quick = " Quick sizes: the figures mean nothing." if settings["quick"] else ""
    return (
        f"Medians of {settings['repeats']} samples, contestants taking turns, channels-last{dtype}; "
        f"{settings['threads']} threads of {hardware}, torch {environment['versions']['torch']}, commit "
        f"{commit}. Measured by `lookaround bench {record['suite']}`.{quick}"
    )


def write_results(results: Results, path: Path) -> list[Path]:
    """Write the record as JSON, and the tables as Markdown beside it; returns both paths."""
    beside = path.with_suffix(".md")
    write_json(path, results.record)
    write_text(beside, results.markdown() + "\n")
    return [path, beside]
