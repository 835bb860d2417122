import pickle
import zipfile

import pytest
import torch

from lookaround.errors import CheckpointError
from lookaround.training.checkpoints import KEYS, require_checkpoint


class Harmful:
    def __reduce__(self):
        return (print, ("ran",))


def write(path, what):
    if what == "text":
        path.write_text("no checkpoint")
    elif what == "archive":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "a")
    elif what == "cut off":
        torch.save({key: torch.zeros(99) for key in KEYS}, path)
        path.write_bytes(path.read_bytes()[:-200])
    elif what == "harmful":
        torch.save({"state_dict": Harmful()}, path, pickle_module=pickle)
    elif what == "other":
        torch.save({"state_dict": {}}, path)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("nothing", "there is no such file"),
        ("text", "it is no checkpoint, or was cut off"),
        ("cut off", "it is no checkpoint, or was cut off"),
        ("archive", "it is an archive of something else"),
        ("harmful", "it holds more than tensors and plain values"),
        ("other", "it holds something else"),
    ],
)
def test_files_that_no_run_has_written_are_refused(tmp_path, capsys, what, reason):
    path = tmp_path / "a.ckpt"
    write(path, what)
    with pytest.raises(CheckpointError, match=f"test: --ckpt_path must be .*: {reason}"):
        require_checkpoint(str(path), "test")
    assert "ran" not in capsys.readouterr().out


def test_a_checkpoint_passes(tmp_path):
    torch.save(dict.fromkeys(KEYS, 1), tmp_path / "a.ckpt")
    assert require_checkpoint(str(tmp_path / "a.ckpt"), "fit") is None
