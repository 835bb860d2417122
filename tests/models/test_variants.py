"""Making models by name: the list, the overrides, their round trip, and what is refused."""

import json

import pytest
import torch

from lookaround.errors import ArgumentError, UnknownBackendError, UnknownNameError
from lookaround.models import ResNetConfig, create_model, list_models

TINY = {"width": 0.25, "num_classes": 2}
PAPER_NAMES = [
    f"{start}resnet{layers}{end}"
    for layers in (26, 38, 50)
    for start, end in (("", ""), ("sasa_", "_convstem"), ("sasa_", ""))
]


def test_every_name_is_listed() -> None:
    small = [f"{name}_small" for name in PAPER_NAMES]
    ours = ["resnet14_small", "sasa_resnet14_convstem_small", "sasa_resnet14_small"]
    classifiers = sorted([*PAPER_NAMES, *small, *ours])
    assert sorted(list_models(task="classification")) == classifiers
    detectors = sorted(name.replace("resnet", "retinanet_resnet") for name in classifiers)
    assert sorted(list_models(task="detection")) == detectors
    assert sorted(list_models()) == sorted([*classifiers, *detectors])


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize("task", ["detect", "", ["detection"]])
def test_an_unknown_task_is_refused(task: object) -> None:
    must = r"list_models: task must be known; got .*\.\nhint: .*Known: classification, detection"
    with pytest.raises(UnknownNameError, match=must):
        list_models(task=task)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*_resnet50", ["sasa_resnet50", "retinanet_resnet50", "sasa_retinanet_resnet50"]),
        ("sasa_resnet14*", ["sasa_resnet14_convstem_small", "sasa_resnet14_small"]),
        ("RESNET50", []),
        ("", []),
    ],
)
def test_a_pattern_chooses(pattern: str, names: list[str]) -> None:
    assert list_models(pattern) == names


OVERRIDES = [
    {},
    {"width": 0.5, "num_classes": 10, "in_channels": 1, "drop_path": 0.1, "batch_norm_momentum": 0.01},
    {"attention_stages": (4, 3, 4), "kernel_size": (3, 5), "num_heads": 4, "shared_tables": False},
    {"stem": "attention", "stem_values": "plain", "border": "zeros", "content": False, "small": True},
    {"depths": [1, 1, 1, 1], "position": "absolute", "backend": "reference", "attention_stages": []},
]


@pytest.mark.parametrize("overrides", OVERRIDES)
@pytest.mark.parametrize("name", ["resnet26", "sasa_resnet26"])
def test_the_config_makes_the_model_again_by_way_of_json(name: str, overrides: dict) -> None:
    with torch.device("meta"):
        model = create_model(name, **overrides)
        again = create_model(model.config.name, **json.loads(json.dumps(model.config.overrides())))
    assert again.config == model.config
    assert hash(again.config) == hash(model.config)
    shapes = [{key: value.shape for key, value in m.state_dict().items()} for m in (model, again)]
    assert shapes[0] == shapes[1]


def test_stages_are_kept_in_order_and_once() -> None:
    config = ResNetConfig("any", (1, 1, 1, 1), attention_stages=(4, 2, 4))
    assert config.attention_stages == (2, 4)


def test_the_same_seed_makes_the_same_model() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(create_model("sasa_resnet14_small", **TINY).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet5", r"got 'resnet5'\.\nhint: did you mean 'resnet50'\? Known: .*sasa_resnet50"),
        ("", r"got ''\.\nhint: Known: .*resnet26"),
        ("Resnet50", r"got 'Resnet50'\.\nhint: did you mean 'resnet50'\?"),
        (None, r"got None\."),
        (["resnet50"], r"got \['resnet50'\]\."),
    ],
)
def test_an_unknown_model_is_refused(name: object, words: str) -> None:
    with pytest.raises(UnknownNameError, match=f"create_model: name must be a known model; {words}"):
        create_model(name)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ({"widht": 1.0}, r"got 'widht'\.\nhint: did you mean 'width'\? Known: depths, width, .*backend\."),
        ({"classes": 10}, r"got 'classes'\.\nhint: .*num_classes"),
        ({"preloaded": True}, r"got 'preloaded'\.\nhint: "),
    ],
)
def test_a_wrong_override_names_the_right_ones(override: dict, words: str) -> None:
    with pytest.raises(UnknownNameError, match=f"create_model: overrides must be known; {words}"):
        create_model("resnet26", **override)


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ({"depths": (1, 2, 3)}, r"depths must be four integers >= 1; got \(1, 2, 3\)\."),
        ({"depths": [1, 2, 0, 1]}, "depths must be four integers >= 1"),
        ({"depths": (1, 2, 3.0, 1)}, "depths must be four integers >= 1"),
        ({"depths": 4}, "depths must be four integers >= 1; got 4"),
        ({"width": 0}, "width must be > 0; got 0"),
        ({"width": -1.0}, "width must be > 0"),
        ({"width": "wide"}, "width must be a finite number; got 'wide'"),
        ({"width": float("nan")}, "width must be a finite number; got nan"),
        ({"width": float("inf")}, "width must be a finite number; got inf"),
        ({"num_classes": 0}, "num_classes must be an integer >= 1; got 0"),
        ({"num_classes": 2.5}, "num_classes must be an integer >= 1; got 2.5"),
        ({"num_classes": "10"}, "num_classes must be an integer >= 1; got '10'"),
        ({"num_classes": None}, "num_classes must be an integer >= 1; got None"),
        ({"in_channels": True}, "in_channels must be an integer >= 1; got True"),
        ({"num_heads": 0}, "num_heads must be an integer >= 1"),
        ({"attention_stages": (0, 1)}, r"attention_stages must be taken from 1, 2, 3, 4; got \(0, 1\)\."),
        ({"attention_stages": [5]}, "attention_stages must be taken from 1, 2, 3, 4"),
        ({"attention_stages": 3}, "attention_stages must be taken from 1, 2, 3, 4; got 3"),
        ({"attention_stages": [[1]]}, "attention_stages must be taken from 1, 2, 3, 4"),
        ({"attention_stages": "34"}, "attention_stages must be taken from 1, 2, 3, 4"),
        ({"stem": "conv"}, "stem must be one of convolution, attention; got 'conv'"),
        (
            {"stem_values": "aware"},
            "stem_values must be one of spatially_aware, plain, convolution; got 'aware'",
        ),
        ({"position": "sine"}, "position must be one of relative, absolute, none; got 'sine'"),
        ({"position": ["none"]}, r"position must be one of .*; got \('none',\)"),
        ({"border": "wrap"}, "border must be one of mask, zeros; got 'wrap'"),
        ({"small": 1}, "small must be True or False; got 1"),
        ({"content": "no"}, "content must be True or False; got 'no'"),
        ({"shared_tables": None}, "shared_tables must be True or False; got None"),
        ({"kernel_size": 6}, "kernel_size must be odd"),
        ({"kernel_size": "7"}, "kernel_size must be an integer >= 1, or a pair"),
        ({"drop_path": 1}, r"drop_path must be in \[0, 1\); got 1\."),
        ({"drop_path": None}, "drop_path must be a finite number; got None"),
        ({"batch_norm_momentum": 0.0}, r"batch_norm_momentum must be in \(0, 1\]; got 0\.0\."),
        ({"batch_norm_momentum": 1.1}, r"batch_norm_momentum must be in \(0, 1\]"),
    ],
)
@pytest.mark.parametrize("name", ["resnet26", "sasa_resnet26"])
def test_values_that_cannot_be_used_are_named(name: str, override: dict, words: str) -> None:
    """Whether the model would use them or not."""
    with pytest.raises(ArgumentError, match=f"create_model: {words}"):
        create_model(name, **override)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(UnknownBackendError, match="create_model: backend must be known; got 'cuda'"):
        create_model("resnet26", backend="cuda")


def test_heads_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"num_heads must divide out_channels \(64\); got 7"):
        create_model("sasa_resnet26", num_heads=7)
