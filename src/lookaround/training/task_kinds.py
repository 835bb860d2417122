"""What differs between runs of one kind of task and of another: classes, figures, pictures and files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningDataModule

from lookaround.data.classification import ClassificationData
from lookaround.models.variants import DETECTION, VARIANTS, task_of
from lookaround.tasks.classification import ClassificationTask
from lookaround.tasks.network_task import NetworkTask
from lookaround.training.detection_record import draw_detection_curves, write_scores
from lookaround.training.pictures import Rows, draw_confusion_matrix, draw_learning_curves


@dataclass(frozen=True)
class TaskKind:
    """One kind of task.

    Attributes:
        task: the LightningModule.
        data: the data module.
        monitor: the figure that is highest in the best epoch.
        draw_curves: draws the rows of metrics.csv: rows, file, title.
        write_measured: writes what the last validation or test of a task showed, into files of a folder
            whose names begin in a given way: task, data, folder, beginning, title.
    """

    task: type[NetworkTask]
    data: type[LightningDataModule]
    monitor: str
    draw_curves: Callable[[Rows, Path, str], None]
    write_measured: Callable[[Any, Any, Path, str, str], None]


def write_confusion_matrix(task: Any, data: Any, folder: Path, beginning: str, title: str) -> None:
    """Draw the counts of a classification's last validation or test, if there was one."""
    draw_counts(task, list(data.class_names), folder / f"{beginning}confusion_matrix.png", title)


def draw_counts(task: ClassificationTask, class_names: list[str], path: Path, title: str) -> None:
    """Draw the counts of a task's last validation or test, if there was one."""
    counts = task.confusion_matrix
    if counts is not None:
        images = int(counts.sum())
        right = int(counts.diagonal().sum()) / max(images, 1)
        draw_confusion_matrix(
            counts.numpy(), class_names, path, f"{title}: {images:,} images, {right:.2%} correct"
        )


def kind_of(name: str) -> TaskKind:
    """The kind of task that a named network is for; an unknown one is taken for a classifier.

    Raises:
        ModuleNotFoundError: a detector is named, and what it needs is not installed.
    """
    if name in VARIANTS and task_of(name) == DETECTION:
        from lookaround.data.detection import DetectionData
        from lookaround.tasks.detection import DetectionTask

        return TaskKind(DetectionTask, DetectionData, "val_map", draw_detection_curves, write_scores)
    return TaskKind(
        ClassificationTask, ClassificationData, "val_accuracy", draw_learning_curves, write_confusion_matrix
    )


def kind_of_task(task: NetworkTask) -> TaskKind:
    """The kind of a task that was built."""
    return kind_of(str(task.hparams["model"]))


def chosen_network(arguments: Sequence[str]) -> str:
    """The network that a command line names, in its files or by an option; the last one counts.

    Args:
        arguments: what LightningCLI will be given, recipes already replaced by files.

    Returns:
        The name, or "" where there is none, or the files are such that LightningCLI will refuse them.
    """
    name = ""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        option, equals, value = argument.partition("=")
        option, value = (option, value) if equals else (before, argument)
        if option in ("-c", "--config"):
            name = _network_of_file(Path(value), name)
        elif option == "--model.model":
            name = value
    return name


def _network_of_file(path: Path, default: str) -> str:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return default  # LightningCLI says what is wrong with it
    model = content.get("model") if isinstance(content, dict) else None
    named = model.get("model") if isinstance(model, dict) else None
    return named if isinstance(named, str) else default
