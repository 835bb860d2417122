import pytest

from lookaround.errors import CheckpointError, ConfigError
from lookaround.training.run_folder import RunFolder


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x"])
def test_names_that_are_no_folder_name_are_refused(name, tmp_path):
    with pytest.raises(ConfigError, match="--name must be the name of one folder"):
        RunFolder.of(str(tmp_path), name)


def test_an_occupied_folder_is_refused(tmp_path):
    folder = RunFolder.of(str(tmp_path), "a")
    folder.refuse_if_occupied()
    folder.path.mkdir()
    (folder.path / "notes.txt").touch()
    assert not folder.occupied
    (folder.path / "metrics.csv").touch()
    with pytest.raises(ConfigError, match=r"(?s)a folder without a run in it; got .*--resume.*--overwrite"):
        folder.refuse_if_occupied()


def test_clearing_leaves_the_files_of_others(tmp_path):
    folder = RunFolder(tmp_path / "a")
    folder.checkpoints.mkdir(parents=True)
    folder.last_checkpoint.touch()
    (folder.path / "notes.txt").touch()
    folder.clear()
    assert [path.name for path in folder.path.iterdir()] == ["notes.txt"]
    (folder.path / "notes.txt").unlink()
    folder.clear()
    assert not folder.path.exists()


def test_a_run_moves_with_its_files_alone(tmp_path):
    folder = RunFolder(tmp_path / "a")
    folder.checkpoints.mkdir(parents=True)
    folder.last_checkpoint.touch()
    (folder.path / "notes.txt").touch()
    folder.move_to(folder.aside)
    assert folder.aside.last_checkpoint.is_file()
    assert not folder.occupied
    assert (folder.path / "notes.txt").is_file()


@pytest.mark.parametrize("which", ["last", "best"])
def test_a_missing_checkpoint_says_where_it_was_looked_for(tmp_path, which):
    folder = RunFolder(tmp_path)
    with pytest.raises(CheckpointError, match=f"got no file {tmp_path}/checkpoints/{which}.ckpt"):
        folder.checkpoint(which)
