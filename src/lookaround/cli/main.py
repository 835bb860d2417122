"""The `lookaround` command: a table of commands, errors in one line, exit codes.

Exit codes: 0 done; 1 done, but something was left out or found wrong; 2 the request cannot be served;
130 stopped by the user.
"""

import argparse
import importlib
import importlib.metadata
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from lookaround.errors import ConfigError, LookaroundError, UnknownNameError, closest, message


@dataclass(frozen=True)
class Command:
    """One command: what it does in a line, and the module that does it."""

    help: str
    module: str
    passes_arguments: bool = False
    """Whether the module reads its arguments itself, by `run(command, arguments)`."""


COMMANDS = {
    "info": Command("versions, hardware, and every operator backend with its reasons", "lookaround.cli.info"),
    "models": Command("every named network with parameters and FLOPs", "lookaround.cli.models"),
    "fit": Command("train a network by a recipe", "lookaround.cli.fit", passes_arguments=True),
    "validate": Command(
        "measure a trained network on validation images", "lookaround.cli.fit", passes_arguments=True
    ),
    "test": Command("measure a trained network on test images", "lookaround.cli.fit", passes_arguments=True),
    "predict": Command("say what is in images", "lookaround.cli.predict"),
    "maps": Command("draw where a trained network looks in images", "lookaround.cli.maps"),
    "export": Command("a trained network as ONNX, torch.export or machine code", "lookaround.cli.export"),
    "convert": Command("put attention in the place of a network's convolutions", "lookaround.cli.convert"),
    "hub": Command("networks for the Hugging Face hub, timm, and this package", "lookaround.cli.hub"),
    "data": Command("make images with boxes to learn detection from", "lookaround.cli.data"),
    "compare": Command("put finished runs into one table", "lookaround.cli.compare"),
    "study": Command("train many networks that make one table", "lookaround.cli.study"),
    "paper": Command("the paper, table by table: costs, and trainings", "lookaround.cli.paper"),
    "bench": Command("measure against what it replaces, on this machine", "lookaround.cli.bench"),
    "demo": Command(
        "train three small networks to read handwritten digits and one to find them", "lookaround.cli.demo"
    ),
}
EXTRAS = {
    "lightning": "train",
    "jsonargparse": "train",
    "torchvision": "train",
    "faster_coco_eval": "detect",
    "tensorboard": "train",
    "sklearn": "train",
    "scipy": "train",
    "timm": "timm",
    "rich": "train",
    "huggingface_hub": "hub",
    "ray": "ray",
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "export",
    "PIL": "explore",
    "matplotlib": "explore",
}


class _Parser(argparse.ArgumentParser):
    """argparse with errors of the one form that every error here has."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message.rstrip('.')}. hint: `{self.prog} --help` lists every argument.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: arguments after the program's name; those of the process if not given.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"lookaround {importlib.metadata.version('lookaround')}")
        return 0
    return _guarded(arguments[0], arguments[1:])


def _guarded(name: str, arguments: list[str]) -> int:
    """Call a command; its deliberate errors become one line on standard error."""
    try:
        return _call(name, arguments)
    except LookaroundError as error:
        return _complain(name, str(error))
    except ModuleNotFoundError as error:
        missing = "" if error.name is None else error.name.partition(".")[0]
        if missing not in EXTRAS:
            raise
        hint = f"pip install 'lookaround[{EXTRAS[missing]}]'."
        return _complain(
            name, message(name, "the packages it uses must be installed", f"no {missing}", hint=hint)
        )
    except KeyboardInterrupt:
        print(f"lookaround {name}: stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe (`| head`) has gone: nothing is wrong, and nobody to tell.
        sys.stderr.close()
        return 0


def _call(name: str, arguments: list[str]) -> int:
    if name not in COMMANDS:
        hint = closest(name, list(COMMANDS))
        raise UnknownNameError(message("lookaround", "the command must be one it has", repr(name), hint=hint))
    command = COMMANDS[name]
    module = importlib.import_module(command.module)
    try:
        if command.passes_arguments:
            return int(module.run(name, arguments))
        parser = _Parser(prog=f"lookaround {name}", description=module.HELP)
        module.add_arguments(parser)
        return int(module.run(parser.parse_args(arguments)))
    except SystemExit as stop:  # --help and --print_config end this way
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)


def _complain(name: str, text: str) -> int:
    parts = [part.strip() for part in text.splitlines() if part.strip()]
    line = " ".join(part if part[-1] in ".:;?!" else f"{part};" for part in parts).rstrip(";")
    line = line.removeprefix(f"{name}: ")
    print(f"lookaround {name}: error: {line}", file=sys.stderr)
    return 2


def _usage() -> str:
    width = max(len(name) for name in COMMANDS)
    lines = [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: lookaround [--version] [--help] COMMAND ...",
            "",
            "Vision models that look around instead of convolving.",
            "",
            *lines,
            "",
            "`lookaround COMMAND --help` says more of each.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
