"""Networks by name: whose they are, how they are made, and names that nobody has."""

import importlib.util
import sys

import pytest
import torch

from lookaround.errors import ArgumentError, DataError, UnknownNameError
from lookaround.integrations.networks import NamedNetwork, find_network, make_network
from lookaround.models import ResNet


@pytest.mark.parametrize(
    ("name", "found", "others"),
    [
        ("resnet50", "torchvision:resnet50", ("timm", "lookaround")),
        ("squeezenet1_1", "torchvision:squeezenet1_1", ()),
        ("resnet50d", "timm:resnet50d", ()),
        ("resnet50d.ra2_in1k", "timm:resnet50d.ra2_in1k", ()),
        ("sasa_resnet50", "lookaround:sasa_resnet50", ()),
        ("timm:resnet50", "timm:resnet50", ()),
        ("lookaround:resnet50", "lookaround:resnet50", ()),
    ],
)
def test_names_are_found(name: str, found: str, others: tuple[str, ...]) -> None:
    # Once our networks are registered with timm, it knows their names too.
    if "lookaround.integrations.timm" in sys.modules and name == "sasa_resnet50":
        pytest.skip("timm has been told of our networks")
    network = find_network(name)
    assert str(network) == found
    assert network.others == others


def test_a_package_that_is_not_there_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    absent = ("torchvision", "timm")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name not in absent and find_spec(name))
    assert find_network("resnet50") == NamedNetwork("lookaround", "resnet50")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("resnet51", r"one of torchvision, timm, lookaround; got 'resnet51'.\nhint: did you mean .*:resnet5"),
        ("timm:sasa", r"the network must be one of timm; got 'timm:sasa'"),
        ("tim:resnet50", r"the source must be known; got 'tim'.\nhint: did you mean 'timm'"),
        ("hf-hub:timm/resnet50", "the source must be known; got 'hf-hub'"),
        ("timm:hf-hub:timm/resnet50", "the source must be known; got 'timm:hf-hub'"),
        ("timm:local-dir:/tmp", "the source must be known"),
        ("timm:resnet50./../x", "the network must be one of timm"),
        ("", "the network must be one of torchvision"),
    ],
)
def test_unknown_names(name: str, text: str) -> None:
    with pytest.raises(UnknownNameError, match=text):
        find_network(name)


@pytest.mark.parametrize(
    "name", ["torchvision:squeezenet1_1", "timm:test_resnet", "lookaround:resnet14_small"]
)
def test_networks_are_made(name: str) -> None:
    with torch.no_grad():
        assert make_network(find_network(name), 5).eval()(torch.randn(1, 3, 48, 48)).shape == (1, 5)


def test_a_detector_downloads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: pytest.fail("downloads"))
    network = NamedNetwork("torchvision", "ssdlite320_mobilenet_v3_large")
    assert sum(p.numel() for p in make_network(network, 3).parameters()) > 1e6


def test_ours_are_ours() -> None:
    assert type(make_network(find_network("lookaround:sasa_resnet14_small"))) is ResNet


def test_options_that_a_network_has_not() -> None:
    with pytest.raises(
        ArgumentError, match=r"must come with these options; got torchvision:raft_small, num_c"
    ):
        make_network(NamedNetwork("torchvision", "raft_small"), 5)


def test_weights_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise ConnectionError("no route")

    import torchvision

    monkeypatch.setattr(torchvision.models, "get_model", fail)
    with pytest.raises(
        DataError, match=r"pretrained weights must be within reach; got .*alexnet \(no route\)"
    ):
        make_network(NamedNetwork("torchvision", "alexnet"), pretrained=True)
