"""Runs of about a second: the smallest network, a few batches of digits."""

from pathlib import Path

from lookaround.cli.main import main

SHORT = {
    "--config": "digits_baseline",
    "--model.overrides.width": "0.0625",
    "--model.overrides.drop_path": "0.2",
    "--model.optimizer.warmup_epochs": "0.5",
    "--trainer.limit_train_batches": "3",
    "--trainer.limit_val_batches": "2",
    "--trainer.enable_model_summary": "false",
    "--trainer.max_epochs": "1",
}


def short_run(command: str, out: Path, *more: str, name: str = "run") -> int:
    """Call a command on a run folder of that name; options in `more` come last and win."""
    options = [word for pair in SHORT.items() for word in pair]
    return main([command, *options, "--out", str(out), "--name", name, *more])
