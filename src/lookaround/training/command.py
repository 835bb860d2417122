"""LightningCLI with the options of a run: name, folder, resume; one-line errors instead of tracebacks."""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning_utilities.core.rank_zero import rank_zero_only

from lookaround.errors import ConfigError, message
from lookaround.tasks.network_task import NetworkTask
from lookaround.training.callbacks import EpochLines, EpochSeed, FiniteGuard, Throughput
from lookaround.training.checkpoints import is_trial, require_checkpoint, run_checkpoints
from lookaround.training.files import write_json
from lookaround.training.recipes import resolve_recipes
from lookaround.training.run_folder import RunFolder
from lookaround.training.run_record import RunConfig, RunRecorder, run_loggers
from lookaround.training.session import interruptible, one_line_errors, quiet_lightning
from lookaround.training.task_kinds import chosen_network, kind_of

COMMANDS = ("fit", "validate", "test")


class RunCommandLine(LightningCLI):
    """`fit`, `validate` and `test` as LightningCLI has them, on a run folder.

    The network decides what is trained: a detector finds objects, any other names what is in a picture.

    Attributes:
        folder: the folder of the run.
        recorder: what writes it.
    """

    folder: RunFolder
    recorder: RunRecorder

    def __init__(self, arguments: Sequence[str], default_name: str | None) -> None:
        self._default_name = default_name
        self._arguments = list(arguments)
        self._kind = kind_of(chosen_network(self._arguments))
        strict = {"exit_on_error": False, "allow_abbrev": False}
        parser_kwargs: dict[str, Any] = {"prog": "lookaround", **strict}
        parser_kwargs |= {command: dict(strict) for command in COMMANDS}
        super().__init__(
            model_class=self._kind.task,
            datamodule_class=self._kind.data,
            save_config_callback=RunConfig,
            save_config_kwargs={"save_to_log_dir": False},
            seed_everything_default=0,
            parser_kwargs=parser_kwargs,
            args=self._arguments,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The commands that run a Trainer, and what of its methods is no option."""
        known = LightningCLI.subcommands()
        return {command: known[command] | {"weights_only"} for command in COMMANDS}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of a run."""
        options = parser.add_argument_group("Run folder")
        options.add_argument(
            "--name", type=str | None, default=None, help="name of the run (default: the recipe's)"
        )
        options.add_argument("--out", type=str, default="runs", help="folder that holds the runs")
        options.add_argument(
            "--resume", action="store_true", help="fit: go on after the last whole epoch of the run"
        )
        options.add_argument("--overwrite", action="store_true", help="fit: replace the run of this name")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; without LightningCLI's warning that arguments were given by a program."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Keep the configured network: the checkpoint must fit the configuration, never replace it."""

    def before_instantiate_classes(self) -> None:
        """Decide the run folder, before anything is built or written."""
        config = self.config[self.subcommand]
        if config["name"] is None:
            config["name"] = "default" if self._default_name is None else self._default_name
        self.folder = RunFolder.of(config["out"], config["name"])
        if self.subcommand == "fit":
            self._prepare_fit(config)
        else:
            which = "last" if config["ckpt_path"] is None else config["ckpt_path"]
            if which in ("last", "best"):
                config["ckpt_path"] = str(self.folder.checkpoint(which, str(self.subcommand)))
        if config["ckpt_path"] is not None:
            require_checkpoint(config["ckpt_path"], str(self.subcommand))
        self.recorder = RunRecorder(self.folder, _seed_of(config))
        self.trainer_defaults = {"callbacks": self._callbacks(config)}

    def _prepare_fit(self, config: Any) -> None:
        chosen = [f"--{name}" for name in ("resume", "overwrite", "ckpt_path") if config[name]]
        if "--resume" in chosen and len(chosen) > 1:
            must = "--resume goes with neither --overwrite nor --ckpt_path"
            raise ConfigError(message("fit", must, " and ".join(chosen), hint="leave one of them."))
        if config["resume"]:
            config["ckpt_path"] = str(self.folder.checkpoint("last"))
        elif _is_first_process() and not (config["overwrite"] or config["trainer"]["fast_dev_run"]):
            # The other processes of a run start after, or beside, the one that writes.
            self.folder.refuse_if_occupied()

    def _callbacks(self, config: Any) -> list[pl.Callback]:
        callbacks: list[pl.Callback] = [Throughput(), FiniteGuard(self.folder), self.recorder]
        seed = _seed_of(config)
        if seed is not None:
            callbacks.append(EpochSeed(seed))
        trainer = config["trainer"]
        if (
            self.subcommand == "fit"
            and trainer["enable_checkpointing"] is not False
            and not trainer["fast_dev_run"]
        ):
            callbacks += run_checkpoints(self.folder, self._kind.monitor)
        if trainer["enable_progress_bar"] is not False and not sys.stdout.isatty():
            callbacks.append(EpochLines())
        return callbacks if self.subcommand == "fit" else callbacks[3:]

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Build the trainer with the loggers of the run folder, unless the configuration names others.

        Raises:
            ConfigError: synchronised batch norm was asked for on a processor that cannot.
        """
        config = self.config[self.subcommand]["trainer"]
        if self.subcommand == "fit" and config["logger"] in (None, True):
            kwargs["logger"] = run_loggers(self.folder)
        elif self.subcommand != "fit" and config["logger"] is None:
            kwargs["logger"] = False
        trainer = super().instantiate_trainer(default_root_dir=str(self.folder.path), **kwargs)
        if config["sync_batchnorm"] and trainer.strategy.root_device.type == "cpu":
            hint = "leave out --trainer.sync_batchnorm, or train on GPUs."
            raise ConfigError(message("fit", "sync_batchnorm needs GPUs", "a CPU trainer", hint=hint))
        return trainer

    def fit(self, model: NetworkTask, **kwargs: Any) -> None:
        """Train; leave nothing behind if training never began.

        Raises:
            KeyboardInterrupt: the user stopped the training; the last whole epoch is kept.
        """
        with self._kept_if_nothing_began(), interruptible(self.trainer, "fit"):
            self.trainer.fit(model, **kwargs)
        if _is_first_process():
            self._say_how_it_ended()

    @contextmanager
    def _kept_if_nothing_began(self) -> Iterator[None]:
        """Leave the folder as it was if the training fails before its first step."""
        resumes = self.config[self.subcommand]["resume"]
        if resumes or is_trial(self.trainer) or not _is_first_process():
            yield
            return
        self.folder.move_to(self.folder.aside)
        try:
            yield
        finally:
            if not self.recorder.started:
                self.folder.clear()
                self.folder.aside.move_to(self.folder)
            self.folder.aside.clear()

    def _say_how_it_ended(self) -> None:
        if not self.recorder.started:
            epochs = self.trainer.current_epoch
            print(f"nothing to do: the run has its {epochs} epochs. hint: raise --trainer.max_epochs.")
        elif not is_trial(self.trainer):
            print(f"run folder: {self.folder.path}")

    def validate(self, model: NetworkTask, **kwargs: Any) -> None:
        """Measure the validation images."""
        self._evaluate("validate", self.trainer.validate, model, **kwargs)

    def test(self, model: NetworkTask, **kwargs: Any) -> None:
        """Measure the test images."""
        self._evaluate("test", self.trainer.test, model, **kwargs)

    def _evaluate(self, command: str, run: Callable[..., Any], model: NetworkTask, **kwargs: Any) -> None:
        with interruptible(self.trainer, command):
            results = run(model, **kwargs)
        path = Path(kwargs["ckpt_path"])
        if not _is_first_process() or path.resolve().parent != self.folder.checkpoints.resolve():
            return  # measured a checkpoint of elsewhere: the numbers are not this run's
        record = {
            name: value if math.isfinite(value) else None
            for result in results
            for name, value in result.items()
        }
        write_json(self.folder.path / f"{command}.json", {"checkpoint": path.name, **record})
        title = f"{self.folder.path.name}: {model.hparams['model']}\n{command}"
        self._kind.write_measured(model, kwargs["datamodule"], self.folder.path, f"{command}_", title)


def run_command(command: str, arguments: Sequence[str]) -> RunCommandLine:
    """Run `fit`, `validate` or `test` with the arguments LightningCLI takes, and the options of a run.

    `--config` takes a YAML file or the name of a packaged recipe; later options override it.

    Args:
        command: what to do.
        arguments: the rest of the command line.

    Returns:
        The command line after its work, with `trainer`, `model`, `datamodule` and `folder`.

    Raises:
        LookaroundError: the command line, the data, the network or the training is at fault.
        KeyboardInterrupt: the user stopped it.
    """
    resolved, name = resolve_recipes(list(arguments))
    # A run's own config.yaml names the run, so that its stem says nothing.
    name = None if name == "config" else name
    with quiet_lightning(), one_line_errors(command):
        return RunCommandLine([command, *resolved], name)


def _is_first_process() -> bool:
    return bool(vars(rank_zero_only).get("rank", 0) == 0)


def _seed_of(config: Any) -> int | None:
    seed = config["seed_everything"]
    return None if isinstance(seed, bool) else int(seed)
