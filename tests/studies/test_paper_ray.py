"""Trainings over Ray, on a cluster of two machines, both of them this one."""

import importlib
import os
import threading
import time
from pathlib import Path

import pytest

import ray_work
from lookaround.errors import ArgumentError, BackendError
from lookaround.studies.paper_jobs import Data, Request
from lookaround.studies.paper_plan import choose_experiments
from lookaround.studies.paper_run import Study

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'lookaround[ray]'")

from lookaround.studies.paper_ray import STOP_SECONDS, RayCrew, ray_cluster  # noqa: E402 - needs Ray

pytestmark = pytest.mark.slow
TESTS = Path(ray_work.__file__).parent


@pytest.fixture(scope="module")
def cluster():
    """One processor on each machine, so that two jobs at a time are on two machines."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)  # for the workers
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        nodes.add_node(num_cpus=1)
        with ray_cluster(nodes.address):
            yield nodes
        nodes.shutdown()


def crew(**options) -> RayCrew[str]:
    return RayCrew(ray_work.act, ray_work.paper_work.log_of, **options)


def outcomes_of(folder: Path, names, **options):
    outcomes = crew(**options).run([str(folder / name) for name in names])
    return {Path(outcome.job).name: outcome for outcome in outcomes}


def test_what_one_job_meets_leaves_the_others_alone(cluster, tmp_path):
    """As on this machine alone; and a worker that dies by itself is tried again before that is reported."""
    names = ["raise-1", "refuse-1", "die-1", "lose-1", "fine-1"]
    outcomes = outcomes_of(tmp_path, names, retries=1)
    assert set(outcomes) == set(names)
    assert outcomes["fine-1"].error is None
    assert outcomes["fine-1"].seconds > 0
    assert outcomes["lose-1"].error is None
    assert outcomes["refuse-1"].error == "act: the images must be there; got none."
    assert outcomes["raise-1"].error.startswith("ZeroDivisionError: by zero\n")
    assert "crew_work.py" in outcomes["raise-1"].error
    assert outcomes["die-1"].error.startswith("its worker was lost, 2 times: ")
    assert (tmp_path / "logs" / "die-1.txt").read_text().count("acting on") == 2
    log = (tmp_path / "logs" / "raise-1.txt").read_text()
    assert "in compiled code" in log
    assert "ZeroDivisionError" in log


def test_a_machine_without_a_module_is_told_apart(cluster, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def act(job): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    work = importlib.import_module("only_here").act
    (outcome,) = RayCrew(work, ray_work.paper_work.log_of).run([str(tmp_path / "fine-1")])
    first = outcome.error.splitlines()[0]
    assert first.startswith("its worker could not begin: ")
    assert first.endswith("No module named 'only_here'")
    assert "\x1b" not in outcome.error


def test_two_machines_work_at_a_time(cluster, tmp_path):
    assert crew().workers == 2
    outcomes = outcomes_of(tmp_path, ["meet-1", "meet-2"])
    assert [outcome.error for outcome in outcomes.values()] == [None, None]


def test_fewer_at_a_time_can_be_asked_for(cluster, tmp_path):
    assert crew(at_once=1).workers == 1
    jobs = [str(tmp_path / f"fine-{number}") for number in range(3)]
    assert [outcome.job for outcome in crew(at_once=1).run(jobs)] == jobs


def test_relative_paths_mean_the_same_everywhere(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcomes = outcomes_of(Path(), ["where-1"])
    assert outcomes["where-1"].error is None
    assert (tmp_path / "where-1").read_text() == str(tmp_path)


def test_folders_that_are_not_shared_are_reported(cluster, tmp_path):
    """A run whose log is not to be seen from here was done where the disk is another."""
    error = outcomes_of(tmp_path, ["hide-1"])["hide-1"].error
    assert error.startswith(
        "paper run: run folders must lie on a disk that all machines of the cluster share"
    )


def test_stopping_interrupts_what_is_running(cluster, tmp_path):
    outcomes = crew().run([str(tmp_path / name) for name in ("fine-1", "linger-1", "linger-2")])
    next(outcomes)
    ray_work.until(lambda: list(tmp_path.glob("linger-*.begun")))
    began = time.monotonic()
    outcomes.close()
    assert time.monotonic() - began < STOP_SECONDS, "it had to be killed"
    assert not list(tmp_path.glob("linger-[12]"))


def test_more_than_any_machine_has_is_said(cluster):
    asking = crew(cpus=1.0, gpus=1.0)
    said = "no machine has 1 CPUs and 1 GPUs for a training (there are: 1 CPUs, 0 GPUs; 1 CPUs, 0 GPUs)"
    assert asking.shortage().startswith(said)
    assert asking.workers == 1
    assert crew().shortage() is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cpus": 0.0}, "--cpus-per-run must be more than 0; got 0.0"),
        ({"cpus": float("nan")}, "--cpus-per-run must be more than 0; got nan"),
        ({"gpus": -1.0}, "--gpus-per-run must be at least 0; got -1.0"),
        ({"gpus": 1.5}, "--cpus-per-run and --gpus-per-run must be whole numbers above 1; got 1.5"),
        ({"at_once": 0}, "--workers must be at least 1; got 0"),
    ],
)
def test_numbers_that_cannot_be_are_refused(options, said):
    with pytest.raises(ArgumentError, match=said):
        crew(**options)


def test_a_machine_that_is_lost_is_replaced_by_another(cluster, tmp_path):
    """The last test of the cluster: afterwards it has one machine."""
    added = cluster.add_node(num_cpus=2)
    outcomes = crew(cpus=2.0).run([str(tmp_path / "stay-1")])
    ended: list = []
    thread = threading.Thread(target=lambda: ended.extend(outcomes))
    thread.start()
    ray_work.until((tmp_path / "stay-1.begun").exists)
    cluster.add_node(num_cpus=2)
    cluster.remove_node(added, allow_graceful=False)
    thread.join(ray_work.PATIENCE_SECONDS)
    assert [outcome.error for outcome in ended] == [None]


def test_a_study_over_the_cluster_keeps_what_is_done(cluster, tmp_path):
    lines: list[str] = []
    request = Request(scale="tiny", data=Data("digits"), seeds=1)
    rows = choose_experiments(["table5"])
    study = Study(tmp_path, rows, request, say=lines.append, train=ray_work.train)
    study.run(engine=RayCrew)
    assert len(study.finished) == 2
    assert len(study.failed) == 1
    assert sum("FAILED: train: the position must be known; got none." in line for line in lines) == 1
    starts = (tmp_path / ray_work.paper_work.STARTS).read_text().splitlines()
    assert len(starts) == 3, "the one that lost its worker was begun again, before it had said so"
    assert "[3/3, 1 failed]" in lines[-1]


def test_a_cluster_that_cannot_be_reached_is_named(monkeypatch):
    def refuse(*_, **__):
        raise ConnectionError("nobody there")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    must = "(?s)--address must be that of a Ray cluster, or left out; got 'auto'.*reason: nobody there"
    with pytest.raises(BackendError, match=must), ray_cluster("auto"):
        pass


def test_an_address_where_nobody_answers_is_refused_at_once(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(BackendError, match=r"got 'ray://127\.0\.0\.1:1'"), ray_cluster("ray://127.0.0.1:1"):
        pass


def test_without_an_address_ray_is_started_and_stopped_again(monkeypatch):
    told: list[object] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda address, **options: told.append((address, options)))
    monkeypatch.setattr(ray, "shutdown", lambda: told.append("stopped"))
    with ray_cluster():
        ((address, options),) = told
        assert address == "local"
        assert options["include_dashboard"] is False
    assert told[1:] == ["stopped"]
