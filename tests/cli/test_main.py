import importlib
import subprocess
import sys

import pytest

from lookaround.cli import main as cli
from lookaround.cli.main import COMMANDS, main


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_the_help_lists_every_command(arguments, capsys):
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"  {name} " in printed
        assert command.help in printed


@pytest.mark.parametrize("argument", ["-V", "--version"])
def test_the_version(argument, capsys):
    assert main([argument]) == 0
    assert capsys.readouterr().out.startswith("lookaround 0.")


def test_an_unknown_command_is_one_line(capsys):
    assert main(["modles"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(
        "lookaround modles: error: lookaround: the command must be one it has; got 'modles'."
    )
    assert "did you mean 'models'" in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there(name):
    module = importlib.import_module(COMMANDS[name].module)
    assert callable(module.run)
    assert COMMANDS[name].passes_arguments or module.HELP


@pytest.mark.parametrize("name", [name for name in COMMANDS if not COMMANDS[name].passes_arguments])
def test_every_command_explains_itself(name, capsys):
    assert main([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: lookaround {name}")


def test_a_wrong_argument_is_one_line(capsys):
    assert main(["models", "--jsn"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "lookaround models: error: unrecognized arguments: --jsn. hint: `lookaround models --help`"
    )
    assert error.count("\n") == 1


def raising(error):
    def call(name, arguments):
        raise error

    return call


def test_ctrl_c_is_130(monkeypatch, capsys):
    monkeypatch.setattr(cli, "_call", raising(KeyboardInterrupt()))
    assert main(["info"]) == 130
    assert capsys.readouterr().err == "lookaround info: stopped.\n"


def test_a_missing_extra_is_named(monkeypatch, capsys):
    monkeypatch.setattr(cli, "_call", raising(ModuleNotFoundError("no", name="lightning.pytorch")))
    assert main(["fit"]) == 2
    assert "got no lightning. hint: pip install 'lookaround[train]'." in capsys.readouterr().err


def test_a_bug_is_not_hidden(monkeypatch):
    monkeypatch.setattr(cli, "_call", raising(ModuleNotFoundError("no", name="lookaround.nothing")))
    with pytest.raises(ModuleNotFoundError):
        main(["info"])
    monkeypatch.setattr(cli, "_call", raising(RuntimeError("bug")))
    with pytest.raises(RuntimeError, match="bug"):
        main(["info"])


def test_the_module_is_the_command():
    command = [sys.executable, "-m", "lookaround", "frob"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 2
    assert "Traceback" not in finished.stderr


def test_the_listing_loads_nothing_heavy():
    code = (
        "import sys; from lookaround.cli.main import main; main([]); "
        "sys.exit(any(name in sys.modules for name in ('lightning', 'torchvision', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
