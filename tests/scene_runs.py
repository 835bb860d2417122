"""Runs of detectors of a few seconds: the smallest network, a handful of tiny scenes, made at first use."""

from pathlib import Path

from lookaround.cli.main import main

TINY_NETWORK = {
    "width": "0.125",
    "num_heads": "2",
    "pyramid_channels": "8",
    "head_depth": "1",
}
TINY_SCENES = {
    "images": "12",
    "image_size": "48",
    "smallest": "12",
    "largest": "24",
    "most_objects": "2",
    "clutter": "1",
}
SHORT = {
    "--config": "scenes_attention_retinanet",
    "--model.optimizer.warmup_epochs": "0.5",
    "--data.batch_size": "2",
    "--trainer.limit_train_batches": "2",
    "--trainer.enable_model_summary": "false",
    "--trainer.max_epochs": "1",
    **{f"--model.overrides.{name}": value for name, value in TINY_NETWORK.items()},
    **{f"--data.scenes.{name}": value for name, value in TINY_SCENES.items()},
}


def options(out: Path) -> list[str]:
    """What makes any scenes recipe short; the scenes lie in `out`."""
    return [*(word for pair in SHORT.items() for word in pair), "--data.root", str(out / "scenes")]


def scene_run(command: str, out: Path, *more: str, name: str = "run") -> int:
    """Call a command on a run folder of that name; options in `more` come last and win."""
    return main([command, *options(out), "--out", str(out / "runs"), "--name", name, *more])
