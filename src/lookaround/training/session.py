"""The manners of a Lightning call: one-line errors, only the warnings that help, a Ctrl-C that is one."""

import argparse
import logging
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lookaround.errors import ConfigError, LookaroundError, message

# Lightning's advice on matters that are decided here, or that a beginner cannot act on.
QUIET = (
    ".*does not have many workers.*",
    ".*number of training batches.*smaller than the logging interval.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*Experiment logs directory .* exists and is not empty.*",
    ".*LeafSpec.*is deprecated.*",
    ".*The dirpath has changed from.*",
    "(?s).*skip_none parameter was deprecated.*",
    ".*callbacks used to create the checkpoint need to be provided.*",
)


@contextmanager
def one_line_errors(command: str) -> Iterator[None]:
    """Turn what jsonargparse and Lightning say of a wrong setting into a ConfigError of one line."""
    try:
        yield
    except LookaroundError:
        raise
    except (argparse.ArgumentError, MisconfigurationException) as error:
        cause = _deliberate_cause(error)
        if cause is not None:
            raise cause from error
        hint = f"`lookaround {command} --help` lists every option, `--print_config` shows what is set."
        known = isinstance(error, argparse.ArgumentError)
        must = "the settings must be ones it knows" if known else "the settings must fit together"
        said = " ".join(str(error).split()).rstrip(".")
        raise ConfigError(message(command, must, said, hint=hint)) from error
    except ValueError as error:  # so jsonargparse says that an optional part of the settings was refused
        cause = _deliberate_cause(error)
        if cause is None:
            raise
        raise cause from error


def _deliberate_cause(error: BaseException) -> LookaroundError | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, LookaroundError):
            return cause
        cause = cause.__cause__ if cause.__cause__ is not None else cause.__context__
    return None


@contextmanager
def interruptible(trainer: pl.Trainer, command: str) -> Iterator[None]:
    """Undo what Lightning makes of Ctrl-C: SystemExit, and a process deaf to the next Ctrl-C."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if not trainer.interrupted:
            raise
        if command == "fit":
            print(
                "stopped; the same command with --resume goes on after the last whole epoch.", file=sys.stderr
            )
        raise KeyboardInterrupt from stop
    finally:
        if trainer.interrupted:
            signal.signal(signal.SIGINT, handler)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Leave out what Lightning says about hardware that is absent and choices that are made here."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    formatted = warnings.formatwarning
    with warnings.catch_warnings():
        warnings.formatwarning = lambda text, *_, **__: f"warning: {' '.join(str(text).split())}\n"
        for pattern in QUIET:
            warnings.filterwarnings("ignore", message=pattern)
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            warnings.formatwarning = formatted
