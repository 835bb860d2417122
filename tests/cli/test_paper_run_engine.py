"""Where the trainings of `lookaround paper run` are done."""

import sys
from contextlib import contextmanager

import pytest

from lookaround.cli.main import main
from lookaround.studies.paper_run import Study

RUN = ["paper", "run", "table6", "--scale", "tiny", "--data", "digits"]


@pytest.fixture
def runs(monkeypatch):
    """What a study is told to run with, instead of running."""
    told = []
    monkeypatch.setattr(Study, "run", lambda self, workers, engine: told.append((workers, engine)))
    return told


def test_processes_here_are_the_default(runs, tmp_path):
    assert main([*RUN, "--out", str(tmp_path)]) == 0
    assert main([*RUN, "--out", str(tmp_path), "--workers", "2"]) == 0
    assert runs == [(1, None), (2, None)]


def test_ray_is_told_what_each_run_gets(runs, tmp_path, monkeypatch):
    paper_ray = pytest.importorskip("lookaround.studies.paper_ray", reason="Ray is not installed")
    addresses = []

    @contextmanager
    def cluster(address):
        addresses.append(address)
        yield

    monkeypatch.setattr(paper_ray, "ray_cluster", cluster)
    options = ["--engine", "ray", "--out", str(tmp_path)]
    assert main([*RUN, *options]) == 0
    more = ["--address", "auto", "--cpus-per-run", "4", "--gpus-per-run", "0.5", "--workers", "8"]
    assert main([*RUN, *options, *more]) == 0
    assert addresses == [None, "auto"]
    crews = [engine(print, print) for _, engine in runs]
    assert [(crew.cpus, crew.gpus, crew.at_once) for crew in crews] == [(1, 0, None), (4, 0.5, 8)]


@pytest.mark.parametrize("option", ["--address", "--cpus-per-run", "--gpus-per-run"])
def test_options_of_ray_need_ray(option, tmp_path, capsys):
    assert main([*RUN, "--out", str(tmp_path), option, "1"]) == 2
    error = capsys.readouterr().err
    assert f"paper run: {option} must go with --engine ray; got --engine local" in error
    assert error.count("\n") == 1


def test_without_ray_the_extra_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "lookaround.studies.paper_ray", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([*RUN, "--out", str(tmp_path), "--engine", "ray"]) == 2
    error = capsys.readouterr().err
    assert "the packages it uses must be installed; got no ray. hint: pip install 'lookaround[ray]'." in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
