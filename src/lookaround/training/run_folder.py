"""The folder of one run: where each file is, and whether a new run may begin there."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from lookaround.errors import CheckpointError, ConfigError, message

FILES = (
    "config.yaml",
    "metrics.csv",
    "environment.json",
    "weights.safetensors",
    "model.json",
    "learning_curves.png",
    "test.json",
    "validate.json",
    *(
        f"{beginning}{name}"
        for beginning in ("", "test_", "validate_")
        for name in ("confusion_matrix.png", "precision_recall.png", "classes.csv", "detections.json")
    ),
)
FOLDERS = ("checkpoints", "logs")


@dataclass(frozen=True)
class RunFolder:
    """`OUT/NAME`: everything a run leaves behind, readable without this library."""

    path: Path

    @classmethod
    def of(cls, out: str, name: str) -> "RunFolder":
        """The folder of a run by name.

        Raises:
            ConfigError: the name is not the name of one folder.
        """
        if not name or name in (".", "..") or Path(name).name != name:
            hint = "choose another --name, and the folder around it with --out."
            raise ConfigError(message("fit", "--name must be the name of one folder", repr(name), hint=hint))
        return cls(Path(out) / name)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """Checkpoint of the last whole epoch."""
        return self.checkpoints / "last.ckpt"

    @property
    def best_checkpoint(self) -> Path:
        """Checkpoint of the epoch that was best on the validation images."""
        return self.checkpoints / "best.ckpt"

    @property
    def occupied(self) -> bool:
        """Whether a finished or unfinished run lives here."""
        return any((self.path / name).exists() for name in (*FILES, *FOLDERS))

    def refuse_if_occupied(self) -> None:
        """Refuse to begin a run on top of another.

        Raises:
            ConfigError: a finished or unfinished run lives here.
        """
        if self.occupied:
            hint = "go on with it by --resume, choose another --name, or replace it by --overwrite."
            must = "a new run needs a folder without a run in it"
            raise ConfigError(message("fit", must, str(self.path), hint=hint))

    def checkpoint(self, which: str, command: str = "fit") -> Path:
        """The `last` or `best` checkpoint, which must exist; `command` is who asks.

        Raises:
            CheckpointError: there is none.
        """
        path = self.best_checkpoint if which == "best" else self.last_checkpoint
        if not path.is_file():
            hint = "check --name and --out, or begin the run by `lookaround fit` without --resume."
            must = f"the run must have a {which} checkpoint"
            raise CheckpointError(message(command, must, f"no file {path}", hint=hint))
        return path

    @property
    def aside(self) -> "RunFolder":
        """Where the run that is being replaced waits until the new one has begun."""
        return RunFolder(self.path.with_name(f".{self.path.name}.replaced"))

    def move_to(self, other: "RunFolder") -> None:
        """Move what a run writes to another folder, replacing the run there."""
        other.clear()
        for name in (*FILES, *FOLDERS):
            if (self.path / name).exists():
                other.path.mkdir(parents=True, exist_ok=True)
                os.replace(self.path / name, other.path / name)

    def clear(self) -> None:
        """Remove what a run writes, and the folder if nothing else is in it; leave files of others alone."""
        for name in FILES:
            (self.path / name).unlink(missing_ok=True)
        for name in FOLDERS:
            shutil.rmtree(self.path / name, ignore_errors=True)
        if self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()
