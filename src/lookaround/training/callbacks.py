"""What watches a training: repeatable epochs, numbers that stay finite, throughput, one line per epoch."""

import sys
import time
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning_utilities.core.rank_zero import rank_zero_only
from torch import Tensor, nn
from torch.optim import Optimizer

from lookaround.errors import NonFiniteLossError, message
from lookaround.training.run_folder import RunFolder


class EpochSeed(Callback):
    """Begins every epoch with random numbers that depend on the seed, the epoch and the process alone.

    So a run that is resumed at an epoch draws what the uninterrupted run draws there: order of the images,
    augmentation, dropped paths.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed Python's, NumPy's and torch's generators."""
        words = np.random.SeedSequence([self.seed, trainer.current_epoch, trainer.global_rank])
        pl.seed_everything(int(words.generate_state(1)[0]), workers=True, verbose=False)


class FiniteGuard(Callback):
    """Stops a training at the step whose loss or gradient is not finite, before it spoils the weights.

    Cost: one number per step crosses from device to host, twice.
    """

    def __init__(self, folder: RunFolder | None = None) -> None:
        self.folder = folder

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Check the loss.

        Raises:
            NonFiniteLossError: it is not finite.
        """
        if not bool(torch.isfinite(loss.detach()).all()):
            self._stop(trainer, f"loss {float(loss.detach())}", _blame(pl_module))

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Check the gradients, unless a gradient scaler does: it skips such steps by design.

        Raises:
            NonFiniteLossError: one is not finite.
        """
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        if trainer.precision in ("16-mixed", "16") or not gradients:
            return
        if not bool(torch.isfinite(nn.utils.get_total_norm(gradients))):
            name = first_non_finite(pl_module, gradients=True)
            if name is not None:  # else the norm overflowed, and every gradient is finite
                self._stop(trainer, "a gradient that is not finite", f"first non-finite gradient: {name}")

    def _stop(self, trainer: pl.Trainer, got: str, held: str) -> None:
        good = "none yet" if self.folder is None else str(self.folder.last_checkpoint)
        if self.folder is not None and not self.folder.last_checkpoint.is_file():
            good = "none yet"
        raise NonFiniteLossError(
            message(
                "fit",
                f"the loss must stay finite (step {trainer.global_step}, epoch {trainer.current_epoch + 1})",
                got,
                lines=[held, f"last good checkpoint: {good}"],
                hint="lower --model.optimizer.learning_rate, lengthen --model.optimizer.warmup_epochs, "
                "clip with --trainer.gradient_clip_val 1, or use --trainer.precision 32.",
            )
        )


def _blame(module: nn.Module) -> str:
    name = first_non_finite(module)
    if name is not None:
        return f"first non-finite parameter: {name}"
    largest = max(module.named_parameters(), key=lambda pair: float(pair[1].detach().abs().max()))
    size = float(largest[1].detach().abs().max())
    return f"every parameter is finite; the largest value, {size:.3g}, is in {largest[0]}"


def first_non_finite(module: nn.Module, gradients: bool = False) -> str | None:
    """Name of the first parameter, in the network's order, whose value or gradient is not finite."""
    for name, parameter in module.named_parameters():
        tensor = parameter.grad if gradients else parameter
        if tensor is not None and not bool(torch.isfinite(tensor).all()):
            return name
    return None


class Throughput(Callback):
    """Logs `images_per_second` (mean of the epoch so far, without validation) and `learning_rate`."""

    def __init__(self) -> None:
        self._began = 0.0
        self._images = 0
        self._learning_rate = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count."""
        self._began = time.perf_counter()
        self._images = 0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Read the learning rate of this step: at its end the schedule has moved on."""
        self._learning_rate = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the images of a batch."""
        self._images += len(batch[0]) * trainer.world_size
        rate = self._images / max(time.perf_counter() - self._began, 1e-9)
        pl_module.log("images_per_second", rate, prog_bar=True, on_step=True, on_epoch=False)
        pl_module.log("learning_rate", self._learning_rate, prog_bar=True, on_step=True, on_epoch=False)


class EpochLines(ProgressBar):
    """Progress for logs and pipes: one plain line per epoch instead of a bar."""

    def __init__(self) -> None:
        super().__init__()
        self._began = 0.0

    def disable(self) -> None:
        """Nothing to switch off: only the first process prints."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    @rank_zero_only
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the line."""
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        seconds = time.perf_counter() - self._began
        sys.stdout.write(
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {_line(values)}  {seconds:.1f} s\n"
        )
        sys.stdout.flush()


LINE = (
    ("train_loss", "train_loss {:.4f}"),
    ("val_loss", "val_loss {:.4f}"),
    ("val_accuracy", "val_accuracy {:.2%}"),
    ("val_map", "val_map {:.3f}"),
    ("val_map50", "val_map50 {:.3f}"),
    ("learning_rate", "learning_rate {:.3g}"),
    ("images_per_second", "{:.0f} images/s"),
)


def _line(values: dict[str, float]) -> str:
    return "  ".join(form.format(values[name]) for name, form in LINE if name in values)
