"""The files of a run folder, kept up to date while a run goes on.

| file | holds |
|---|---|
| config.yaml | every setting; `lookaround fit --config` takes it |
| metrics.csv | one row per epoch |
| environment.json | versions, hardware, threads, commit, seed, start, duration, status |
| weights.safetensors, model.json | the network at the end (averaged weights where used) |
| learning_curves.png | losses and figures against the epoch |
| confusion_matrix.png | which validation images were taken for which class |
| precision_recall.png, classes.csv, detections.json | of a detector: curves, each class, every box |
| checkpoints/last.ckpt, best.ckpt | everything needed to go on |
| logs/ | TensorBoard and Lightning's own CSV |
"""

import json
import math
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from lookaround.models.checkpoint import save_model
from lookaround.tasks.network_task import NetworkTask
from lookaround.training.checkpoints import is_trial
from lookaround.training.environment import describe_environment
from lookaround.training.files import read_rows, write_json, write_rows, write_text
from lookaround.training.run_folder import RunFolder
from lookaround.training.task_kinds import kind_of_task


class RunRecorder(Callback):
    """Writes metrics, environment, weights and pictures of a run into its folder.

    Args:
        folder: folder of the run.
        seed: seed of the run, for the record.

    Attributes:
        started: whether training began, so that there is something worth keeping.
        finished: whether training went on to its end in this session.
    """

    def __init__(self, folder: RunFolder, seed: int | None) -> None:
        self.folder = folder
        self.started = False
        self.finished = False
        self._seed = seed
        self._rows: list[dict[str, float]] = []
        self._environment: dict[str, Any] = {}
        self._session_began = time.perf_counter()
        self._earlier_seconds = 0.0
        self._epoch_began = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the rows of the epochs that are behind and describe the machine."""
        self.started = True
        if not trainer.is_global_zero or is_trial(trainer):
            return
        metrics = self.folder.path / "metrics.csv"
        self._rows = [row for row in read_rows(metrics) if row["epoch"] <= trainer.current_epoch]
        self._begin_environment(resumed=trainer.current_epoch > 0)
        self._write_environment("running")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of the epoch."""
        self._epoch_began = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add a row to metrics.csv."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if not trainer.is_global_zero or is_trial(trainer):
            return
        seconds = time.perf_counter() - self._epoch_began
        counts = {"epoch": float(trainer.current_epoch + 1), "step": float(trainer.global_step)}
        row = counts | metrics | {"epoch_seconds": seconds}
        self._rows.append({key: row[key] for key in sorted(row, key=_column)})
        write_rows(self.folder.path / "metrics.csv", self._rows)
        self._write_environment("running")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember that the end was reached."""
        self.finished = True

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write weights and pictures, once averaged weights are in place."""
        if not self.finished or not trainer.is_global_zero or is_trial(trainer):
            return
        assert isinstance(pl_module, NetworkTask)
        data = trainer.datamodule  # type: ignore[attr-defined]
        metrics: dict[str, float] = dict(self._rows[-1]) if self._rows else {}
        save_model(
            pl_module.network,
            self.folder.path,
            preprocessing=data.preprocessing.to_dict(),
            class_names=list(data.class_names),
            metrics={
                name: value
                for name, value in metrics.items()
                if name.startswith(("epoch", "val_", "train_")) and math.isfinite(value)
            },
            category_ids=getattr(data, "category_ids", None),
        )
        self._draw(pl_module, data)
        self._write_environment("finished")

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Say in environment.json how the run stopped."""
        if self.started and trainer.is_global_zero and not is_trial(trainer) and self._environment:
            self._write_environment("interrupted" if isinstance(exception, KeyboardInterrupt) else "failed")

    def _begin_environment(self, resumed: bool) -> None:
        earlier = _read_json(self.folder.path / "environment.json") if resumed else {}
        self._earlier_seconds = float(earlier.get("duration_seconds", 0.0))
        self._session_began = time.perf_counter()
        self._environment = describe_environment() | {
            "seed": self._seed,
            "started": earlier.get("started", datetime.now(UTC).isoformat(timespec="seconds")),
            "resumed_times": int(earlier.get("resumed_times", -1)) + 1 if earlier else 0,
        }

    def _write_environment(self, status: str) -> None:
        seconds = self._earlier_seconds + time.perf_counter() - self._session_began
        state = {"status": status, "epochs": len(self._rows), "duration_seconds": round(seconds, 3)}
        write_json(self.folder.path / "environment.json", self._environment | state)

    def _draw(self, task: NetworkTask, data: Any) -> None:
        kind, title = kind_of_task(task), f"{self.folder.path.name}: {task.hparams['model']}"
        kind.draw_curves(self._rows, self.folder.path / "learning_curves.png", title)
        kind.write_measured(task, data, self.folder.path, "", f"{title}\nvalidation")


COLUMNS = ("epoch", "step", "train_", "val_", "learning_rate", "images_per_second", "epoch_seconds")


def _column(key: str) -> int:
    places = [place for place, prefix in enumerate(COLUMNS) if key.startswith(prefix)]
    return max(places, default=len(COLUMNS))


class RunConfig(SaveConfigCallback):
    """Writes config.yaml, such that it can be given to --config again."""

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write all settings but those that say how this session began."""
        if stage != "fit":
            return
        config = self.config.clone()
        for key, value in (("resume", False), ("overwrite", False), ("ckpt_path", None)):
            config[key] = value
        folder = RunFolder.of(config["out"], config["name"])
        write_text(folder.path / "config.yaml", self.parser.dump(config, skip_none=False))


def run_loggers(folder: RunFolder) -> list[Logger]:
    """TensorBoard and CSV logs of every session of a run."""
    logs = folder.path / "logs"
    return [
        TensorBoardLogger(logs, name="tensorboard", version="", default_hp_metric=False),
        CSVLogger(logs, name="csv"),
    ]


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value = json.loads(path.read_text(encoding="utf-8"))
    return value if isinstance(value, dict) else {}
