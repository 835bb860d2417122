"""What the training of every named network has in common: how it is built, optimised and restored."""

import math
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig

from lookaround.errors import ArgumentError, CheckpointError, ConfigError, message
from lookaround.models import create_model, list_models
from lookaround.models.variants import Model, task_of
from lookaround.tasks.optimization import AveragedWeights, OptimizerConfig, build_optimizer, build_schedule

NETWORK_FIELDS = ("model", "overrides", "num_classes", "in_channels")
# Checkpoints hold plain types only; this is how Lightning makes an OptimizerConfig of the mapping again.
INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"


class NetworkTask(pl.LightningModule):
    """A named network and the optimizer that trains it; losses and metrics are those of its subclasses.

    The network is built when training or testing starts, with as many classes and channels as the data has.

    Args:
        kind: what the network must be for, as in `lookaround.list_models(task=kind)`.
        settings: every setting of the task in plain types, `model`, `overrides`, `num_classes` and
            `in_channels` among them; they are kept in checkpoints.
        optimizer: optimizer, schedule and averaging of weights.

    Raises:
        UnknownNameError: the network or an override is not known.
        ArgumentError: the network is for something else, or an override is out of its range.
    """

    network: Any

    def __init__(self, kind: str, settings: Mapping[str, Any], optimizer: OptimizerConfig) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.overrides: dict[str, Any] = dict(settings["overrides"])
        self.save_hyperparameters({**settings, "_instantiator": INSTANTIATOR})
        # A wrong name or override shows now, at no cost, before anything is written.
        with torch.device("meta"):
            create_model(settings["model"], **self.overrides)
        if task_of(settings["model"]) != kind:
            must = f"model must be a network for {kind}"
            known = ", ".join(list_models("*14*", task=kind))
            hint = f"try one of {known}, or `lookaround models`."
            raise ArgumentError(message(type(self).__name__, must, repr(settings["model"]), hint=hint))
        if settings["num_classes"] is not None and settings["in_channels"] is not None:
            self.configure_model()

    def configure_model(self) -> None:
        """Build the network, once, for the classes and channels of the data.

        Raises:
            ConfigError: neither the data nor the arguments say how many classes or channels there are.
        """
        if hasattr(self, "network"):
            return
        data = self._datamodule()
        if self.hparams["num_classes"] is None:
            self.hparams["num_classes"] = self._of_data(data, "num_classes")
        preprocessing = getattr(data, "preprocessing", None)
        if self.hparams["in_channels"] is None:
            self.hparams["in_channels"] = self._of_data(preprocessing, "in_channels")
        classes, channels = self.hparams["num_classes"], self.hparams["in_channels"]
        chosen = {"num_classes": classes, "in_channels": channels} | self.overrides
        network: Model = create_model(self.hparams["model"], **chosen)
        self.network = network.to(memory_format=torch.channels_last)

    def _datamodule(self) -> object | None:
        return None if self._trainer is None else getattr(self._trainer, "datamodule", None)

    def _of_data(self, data: object | None, name: str) -> int:
        value = getattr(data, name, None)
        if value is None:
            hint = f"train with a data module that has {name}, or give {name} to the task."
            must = f"the data must say {name}"
            raise ConfigError(message(type(self).__name__, must, value, hint=hint))
        return int(value)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Optimizer for the real global batch; schedule for the number of steps this trainer will make.

        Raises:
            ConfigError: the number of steps is not known, so that a schedule has no end.
        """
        self.trainer.fit_loop.setup_data()  # else the numbers below are not known yet
        total = self.trainer.estimated_stepping_batches
        if math.isinf(total) or math.isinf(self.trainer.num_training_batches):
            got = f"max_epochs={self.trainer.max_epochs}"
            hint = "give --trainer.max_epochs or --trainer.max_steps."
            raise ConfigError(message("fit", "the schedule needs an end", got, hint=hint))
        epoch_steps = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        optimizer = build_optimizer(self.network, self.optimizer, self.global_batch_size())
        schedule = build_schedule(optimizer, self.optimizer, int(total), epoch_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def global_batch_size(self) -> int:
        """Images per optimizer step: per process x accumulated batches x processes of all nodes."""
        loader = self.trainer.train_dataloader
        per_process = getattr(loader, "batch_size", None)
        if per_process is None:
            per_process = self._of_data(self._datamodule(), "batch_size")
        return int(per_process) * self.trainer.accumulate_grad_batches * self.trainer.world_size

    def on_train_start(self) -> None:
        """Let the first step after a resume follow this run's schedule, not the one of the checkpoint."""
        schedule = self.lr_schedulers()
        assert isinstance(schedule, torch.optim.lr_scheduler.LambdaLR)
        for group, base, share in zip(
            schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
        ):
            group["lr"] = base * share(schedule.last_epoch)

    def configure_callbacks(self) -> list[pl.Callback]:
        """The averaging of weights, while fitting."""
        decay = self.optimizer.ema_decay
        if decay is None or self.trainer.state.fn != TrainerFn.FITTING:
            return []
        return [AveragedWeights(decay=decay)]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network.

        Raises:
            CheckpointError: the checkpoint holds another network than this task.
        """
        saved = checkpoint.get("hyper_parameters", {})
        differing = [name for name in NETWORK_FIELDS if saved.get(name) != self.hparams[name]]
        if differing:
            lines = [
                f"{name}: {self.hparams[name]!r} here, {saved.get(name)!r} in the file" for name in differing
            ]
            hint = "give the settings of its own run, as in --config runs/NAME/config.yaml."
            got = f"a checkpoint of {saved.get('model')!r}"
            must = f"the checkpoint must be of {self.hparams['model']!r} as configured"
            raise CheckpointError(message(type(self).__name__, must, got, lines=lines, hint=hint))
