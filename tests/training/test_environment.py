import json
import subprocess
import sys

import torch

from lookaround.training import environment


def test_the_description_is_plain_and_names_what_matters():
    facts = json.loads(json.dumps(environment.describe_environment()))
    assert facts["versions"]["torch"] == torch.__version__.split("+")[0]
    assert facts["cpu"]["threads"] == torch.get_num_threads()
    assert facts["cpu"]["cores"] >= 1
    assert facts["python"].startswith("3.")


def test_absent_packages_have_no_version(monkeypatch):
    monkeypatch.setattr(environment, "PACKAGES", ("torch", "no-such-package"))
    assert environment.package_versions()["no-such-package"] is None


def test_a_commit_of_somebody_elses_repository_is_not_ours(monkeypatch):
    monkeypatch.setattr(environment, "_git", lambda folder, *words: None if words[0] == "ls-files" else "abc")
    environment.commit.cache_clear()
    assert environment.commit() is None
    monkeypatch.setattr(environment, "_git", lambda folder, *words: {"rev-parse": "abc"}.get(words[0], ""))
    environment.commit.cache_clear()
    assert environment.commit() == "abc"
    monkeypatch.setattr(environment, "_git", lambda folder, *words: "abc")
    environment.commit.cache_clear()
    assert environment.commit() == "abc+changes"
    environment.commit.cache_clear()


def test_a_missing_git_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment._git(tmp_path, "rev-parse", "HEAD") is None


def test_describing_a_machine_does_not_load_lightning():
    code = "import sys, lookaround.training.environment; sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
