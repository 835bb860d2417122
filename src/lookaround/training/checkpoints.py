"""Checkpoints of a run: which are kept, and which files are one."""

import pickle
import zipfile
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from lookaround.errors import CheckpointError, message
from lookaround.training.run_folder import RunFolder

KEYS = ("state_dict", "hyper_parameters", "loops", "pytorch-lightning_version")


def is_trial(trainer: pl.Trainer) -> bool:
    """Whether this is `--trainer.fast_dev_run`, which leaves nothing behind."""
    return bool(vars(trainer).get("fast_dev_run"))


class LastCheckpoint(ModelCheckpoint):
    """Keeps the last whole epoch, and the untrained state until there is one.

    Departures from Lightning: `save_last` saves only in epochs that are the best so far.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the start, so that a run stopped in its first epoch can go on too."""
        super().on_train_start(trainer, pl_module)
        if trainer.current_epoch == 0 and not is_trial(trainer):
            assert self.dirpath is not None
            trainer.save_checkpoint(Path(self.dirpath) / "last.ckpt")


def run_checkpoints(folder: RunFolder, monitor: str = "val_accuracy") -> list[Callback]:
    """The callbacks that keep the best epoch, in which `monitor` is highest, and the last."""
    best = ModelCheckpoint(
        dirpath=folder.checkpoints,
        filename="best",
        monitor=monitor,
        mode="max",
        enable_version_counter=False,
    )
    return [best, LastCheckpoint(dirpath=folder.checkpoints, filename="last", enable_version_counter=False)]


def require_checkpoint(path: str, command: str) -> None:
    """Refuse a file that no run has written; reads it without running anything in it.

    Args:
        path: the file.
        command: who asks.

    Raises:
        CheckpointError: there is no such file, or it is damaged, or something else.
    """
    reason = _reason_against(Path(path))
    if reason is not None:
        hint = "give a .ckpt file of a run, as in runs/NAME/checkpoints/last.ckpt."
        must = "--ckpt_path must be a whole checkpoint of a run"
        raise CheckpointError(message(command, must, f"{path!r}: {reason}", hint=hint))


def _reason_against(path: Path) -> str | None:
    if not path.is_file():
        return "there is no such file"
    # A checkpoint is a zip archive, with its table of contents at the end: one that was cut off is none.
    if not zipfile.is_zipfile(path):
        return "it is no checkpoint, or was cut off"
    with zipfile.ZipFile(path) as archive:
        if not any(name.endswith("data.pkl") for name in archive.namelist()):
            return "it is an archive of something else"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        return "it holds more than tensors and plain values"
    if not isinstance(content, dict) or any(key not in content for key in KEYS):
        return "it holds something else"
    return None
