import dataclasses

import pytest
import torch
import yaml

from lookaround.errors import ArgumentError, UnknownNameError
from lookaround.models import create_model
from lookaround.models.variants import VARIANTS
from lookaround.studies.paper_jobs import Data, Request, make_jobs, phases
from lookaround.studies.paper_ledger import open_ledger
from lookaround.studies.paper_networks import network_at, simplest
from lookaround.studies.paper_plan import EXPERIMENTS, HELD, TEST, choose_experiments
from lookaround.studies.paper_progress import Progress
from lookaround.studies.paper_scale import SCALES, find_scale
from lookaround.training.recipes import find_recipe

ALL_ROWS = [(name, row) for name, experiment in EXPERIMENTS.items() for row in experiment.rows]


def test_every_table_is_there_with_the_split_it_was_measured_on():
    sizes = {name: len(experiment.rows) for name, experiment in EXPERIMENTS.items()}
    assert sizes == {
        "table1": 9,
        "figure5": 15,
        "table3": 8,
        "table4": 5,
        "table5": 3,
        "table6": 2,
        "table7": 3,
        "border": 8,
        "beyond": 10,
        "table2": 5,
    }
    for name, row in ALL_ROWS:
        assert row.measured_on == (HELD if name in ("table3", "table5") else TEST)
        assert (row.paper_percent is None) == (name in ("border", "beyond"))


def test_tables_are_chosen_by_name():
    assert [e.name for e in choose_experiments(["border", "table1"])] == ["table1", "border"]
    assert len(choose_experiments(["all"])) == len(EXPERIMENTS)
    with pytest.raises(UnknownNameError, match="tables must be known; got 'tabel1'"):
        choose_experiments(["tabel1"])
    with pytest.raises(ArgumentError, match="at least one table must be named"):
        choose_experiments([])


@pytest.mark.parametrize("scale", SCALES)
def test_every_row_has_a_network_at_every_scale(scale):
    networks = {}
    for _, row in ALL_ROWS:
        network = network_at(row, find_scale(scale))
        networks[f"{network.model} {sorted(network.overrides.items())}"] = network
    configs = set()
    for network in networks.values():
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in network.overrides.items()}
        configs.add(dataclasses.replace(VARIANTS[network.model], **(values | {"name": ""})))
    assert len(configs) == len(networks)


def test_every_network_can_be_made():
    networks = {
        str(network): network for network in (network_at(row, find_scale("tiny")) for _, row in ALL_ROWS)
    }
    with torch.device("meta"):
        models = [create_model(network.model, **network.overrides) for network in networks.values()]
    assert len(models) == len(networks) > 30


def test_the_paper_scale_is_as_printed_and_trained_by_the_recipes():
    rows = {row.label: row for row in EXPERIMENTS["figure5"].rows}
    network = network_at(rows["width 0.5 full attention"], find_scale("paper"))
    assert network.model == "sasa_resnet50"
    assert network.overrides == {"width": 0.5, "batch_norm_momentum": 1e-4}
    jobs = make_jobs(choose_experiments(["table1"]), Request("paper", Data("folder", "/images"), seeds=1))
    ours = next(job for job in jobs if job.network.model == "sasa_resnet50").settings
    recipe = yaml.safe_load(find_recipe("imagenet_sasa_resnet50").read_text())
    for part in ("model", "data", "trainer"):
        for name, value in recipe[part].items():
            theirs = ours[part][name]
            assert theirs == value or all(theirs[k] == v for k, v in value.items() if k != "momentum")


def test_rows_with_one_network_are_trained_once_and_a_seed_is_complete_before_the_next():
    experiments = choose_experiments(["table1", "figure5", "table3", "table4", "table5", "table6", "table7"])
    jobs = make_jobs(experiments, Request("paper", Data("fashion_mnist"), seeds=2))
    assert len(jobs) == 2 * (9 + 12 + 6 + 4 + 2 + 1 + 2)
    assert [job.seed for job in jobs] == sorted(job.seed for job in jobs)
    assert len({job.name for job in jobs}) == len(jobs)
    assert all(job.settings["data"]["split_seed"] == 0 for job in jobs)
    assert jobs[-1].settings["data"]["seed"] == jobs[-1].settings["seed_everything"] == 1


def test_the_name_changes_with_every_setting_that_matters_and_no_other(tmp_path):
    def name(**changes):
        request = Request("paper", Data("fashion_mnist"), seeds=1)
        request = dataclasses.replace(request, **changes)
        return make_jobs(choose_experiments(["table6"]), request)[0].name

    assert name() == name(seeds=1) == name(data=Data("fashion_mnist", "elsewhere"))
    others = [{"scale": "small"}, {"data": Data("digits")}, {"limits": (("epochs", 3),)}]
    others += [{"data": Data("folder", str(tmp_path / n))} for n in "ab"]
    assert len({name(), *(name(**other) for other in others)}) == 6


def test_what_means_nothing_to_a_network_does_not_tell_it_from_another():
    baseline = simplest("sasa_resnet50_convstem", {"attention_stages": (), "num_heads": 2, "border": "zeros"})
    assert baseline == simplest("resnet50", {"depths": [3, 4, 6, 3], "stem_values": "plain"})
    assert simplest("sasa_resnet50", {"stem_values": "plain"}).overrides == {"stem_values": "plain"}
    assert simplest("resnet50_small", {"depths": (1, 2, 4, 1)}).model == "resnet26_small"
    assert simplest("resnet50", {"no_such": 1}).overrides == {"no_such": 1}


def test_the_same_attending_blocks_are_the_same_network():
    def blocks(choice, depths=(1, 2, 2, 1), stages=(1, 2, 3, 4)):
        overrides = {"depths": depths, "attention_stages": stages, "attention_blocks": choice}
        network = simplest("sasa_resnet50_convstem", overrides)
        return network.model, {k: v for k, v in network.overrides.items() if "attention" in k}

    one = ("sasa_resnet50_convstem", {})
    assert blocks("first", (1, 1, 1, 1)) == blocks("last", (1, 1, 1, 1)) == blocks("all", (1, 1, 1, 1)) == one
    assert blocks("alternate", (1, 1, 1, 1)) == ("resnet50", {}), "no block attends"
    inner = blocks("alternate")
    assert inner == blocks("last", stages=(2, 3))
    assert inner[1] == {"attention_stages": [2, 3], "attention_blocks": "last"}
    assert len({str(blocks(choice)) for choice in ("all", "first", "last", "alternate")}) == 4


def test_rows_are_compared_with_what_the_paper_compares_them_with():
    references = {
        name: list(dict.fromkeys(experiment.reference_of(row).label for row in experiment.rows))
        for name, experiment in EXPERIMENTS.items()
    }
    assert references["table1"] == [f"ResNet-{layers} baseline" for layers in (26, 38, 50)]
    assert references["table3"] == ["attention stages 1, 2, 3, 4"]
    assert references["table4"] == ["window 3"]
    assert references["table5"] == ["relative"]
    assert references["table6"] == ["q·k + q·r"]
    assert references["table7"] == ["spatially-aware values"]
    assert all(label.endswith(", mask") for label in references["border"])
    assert len(references["beyond"]) == 4
    assert references["table2"] == ["convolution, baseline"]


def test_detectors_begin_with_the_classifiers_of_their_seed_where_these_fit(tmp_path):
    def ledger(scale, kind, *names):
        request = Request(scale, Data(kind, str(tmp_path)), Data("coco", str(tmp_path)), seeds=2)
        return open_ledger(tmp_path, choose_experiments(names), request)

    both = ledger("paper", "folder", "table1", "table2")
    jobs = {job.name: job for job in make_jobs(both.experiments, both.request)}
    detectors = [job for job in jobs.values() if job.task == "detection"]
    assert len(detectors) == 10
    for job in detectors:
        backbone = jobs[job.backbone]
        assert backbone.seed == job.seed
        assert backbone.network.model == job.network.model.replace("retinanet_", "")
    for alone in (ledger("paper", "folder", "table2"), ledger("paper", "digits", "table1", "table2")):
        assert not alone.request.backbones
        others = make_jobs(alone.experiments, alone.request)
        assert all(job.backbone is None for job in others)
        assert not {job.name for job in detectors} & {job.name for job in others}
    assert not ledger("small", "folder", "table1", "table2").request.backbones

    cut = phases(list(jobs.values()))
    assert [job for phase in cut for job in phase] == list(jobs.values())
    assert [len(phase) for phase in cut] == [9, 5 + 9, 5]
    for phase in cut:
        assert not {job.backbone for job in phase} & {job.name for job in phase}


def test_time_left_follows_what_the_finished_runs_took():
    now = [0.0]
    progress = Progress({"a": 1.0, "b": 1.0, "c": 2.0}, done=2, workers=1, clock=lambda: now[0])
    assert progress.line() == "[2/5]"
    now[0] = 10.0
    progress.end("a", 10.0, failed=False)
    assert progress.line() == "[3/5, about 30 s left]"
    now[0] = 15.0  # half of b is done
    assert progress.seconds_left() == pytest.approx(25.0)
    progress.end("b", 10.0, failed=True)
    assert progress.line() == "[4/5, 1 failed, about 15 s left]"
