"""`lookaround fit`, `validate` and `test`: train a network by a recipe, measure it."""

from collections.abc import Sequence


def run(command: str, arguments: Sequence[str]) -> int:
    """Hand the arguments to LightningCLI.

    Args:
        command: `fit`, `validate` or `test`.
        arguments: what follows the command.
    """
    from lookaround.training.command import run_command

    run_command(command, arguments)
    return 0
