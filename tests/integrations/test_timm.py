"""What timm asks of every model that it registers, asked of ours, narrow."""

import math
import warnings

import pytest
import timm
import torch
from timm.layers import create_feature_extractor, get_graph_node_names
from timm.models import FeatureInfo, group_parameters
from timm.optim import create_optimizer_v2

import lookaround
from lookaround.errors import ArgumentError, UnknownNameError
from lookaround.integrations import timm as integration
from lookaround.integrations.timm import TimmResNet, timm_name
from lookaround.models import ResNet, list_models

OURS = list_models(task="classification")
NAMES = [timm_name(name) for name in OURS]
NARROW = {"width": 0.125, "num_heads": 2}
KINDS = ["lookaround_resnet14_small", "sasa_resnet14_convstem_small", "sasa_resnet14_small"]
LARGE = ["lookaround_resnet26", "sasa_resnet26_convstem", "sasa_resnet26"]


def make(name: str, **arguments) -> TimmResNet:
    return timm.create_model(name, **{**NARROW, **arguments})


def images(*size: int) -> torch.Tensor:
    return torch.randn(size if len(size) == 4 else (2, 3, 33, 24))


def test_every_classifier_is_registered_and_nothing_of_timm_is_replaced() -> None:
    assert set(NAMES) <= set(timm.list_models())
    assert all(timm.models.model_entrypoint(name).__module__ == integration.__name__ for name in NAMES)
    assert timm.models.model_entrypoint("resnet50").__module__ == "timm.models.resnet"
    assert set(NAMES) & set(timm.list_models(module="resnet")) == set()
    assert [name for name in list_models(task="detection") if timm.is_model(timm_name(name))] == []


def test_a_name_that_timm_has_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integration, "timm_name", lambda name: "resnet50")
    with pytest.warns(UserWarning, match="timm has its own 'resnet50'; ours is not registered"):
        integration._register("resnet50")
    assert timm.models.model_entrypoint("resnet50").__module__ == "timm.models.resnet"


@pytest.mark.parametrize("name", NAMES)
def test_default_configuration_fits_the_network(name: str) -> None:
    model = make(name).eval()
    cfg = model.default_cfg
    assert (cfg["architecture"], cfg["num_classes"], model.num_classes) == (name, 1000, 1000)
    keys = model.state_dict()
    assert f"{cfg['classifier']}.weight" in keys
    assert cfg["first_conv"] is None or f"{cfg['first_conv']}.weight" in keys
    assert (cfg["first_conv"] is None) == ("convstem" not in name and name.startswith("sasa_"))
    with torch.inference_mode():
        found = model.forward_features(torch.randn(1, *cfg["input_size"]))
    assert found.shape == (1, model.num_features, *cfg["pool_size"])
    assert not found.isnan().any()


@pytest.mark.parametrize("name", KINDS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = make(name, num_classes=42).train()
    logits = model(images())
    logits.mean().backward()
    assert logits.shape == (2, 42)
    assert [key for key, p in model.named_parameters() if p.grad is None or p.grad.isnan().any()] == []


@pytest.mark.parametrize("name", [*KINDS, *LARGE])
def test_head_can_be_taken_off_and_put_on(name: str) -> None:
    model = make(name, num_classes=7).eval()
    batch = images()
    features = model.forward_features(batch)
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == (2, model.head_hidden_size)
    assert torch.equal(model(batch), model.forward_head(features))
    model.reset_classifier(0)
    assert model.num_classes == 0
    assert torch.equal(model(batch), pooled)
    model.reset_classifier(0, "")
    assert torch.equal(model(batch), features)
    model.reset_classifier(5, "avg")
    assert model(batch).shape == (2, 5)
    assert model.get_classifier() is model.fc
    assert model.get_classifier(name_only=True) == model.default_cfg["classifier"]
    assert model.config.num_classes == 5


@pytest.mark.parametrize("pool", ["avg", "max", "avgmax", "catavgmax"])
def test_pooling_is_chosen(pool: str) -> None:
    model = make("sasa_resnet14_small", num_classes=3, global_pool=pool).eval()
    assert model.head_hidden_size == model.num_features * (2 if pool.startswith("cat") else 1)
    assert model(images()).shape == (2, 3)
    model.reset_classifier(4)
    assert model.global_pool.pool_type == pool


def test_model_can_be_made_without_a_head() -> None:
    model = make("sasa_resnet14_small", num_classes=0).eval()
    assert model(images()).shape == (2, model.num_features)
    bare = make("sasa_resnet14_small", num_classes=0, global_pool="").eval()
    assert bare(images()).shape == (2, bare.num_features, 5, 3)


@pytest.mark.parametrize("name", [*KINDS, *LARGE])
@pytest.mark.parametrize("kind", [None, "getter", "hook"])
def test_features_have_the_channels_and_sizes_that_are_promised(name: str, kind: str | None) -> None:
    chosen = {} if kind is None else {"feature_cls": kind, "out_indices": (0, 1, 2, 3)}
    model = make(name, features_only=True, **chosen).eval()
    batch = images(1, 3, 70, 61)
    maps = model(batch)
    info = model.feature_info
    assert info.reduction() == ([1, 2, 4, 8] if name.endswith("small") else [4, 8, 16, 32])
    assert [found.shape[1] for found in maps] == info.channels() == [32, 64, 128, 256]
    for found, reduction in zip(maps, info.reduction(), strict=True):
        assert tuple(found.shape[-2:]) == tuple(math.ceil(size / reduction) for size in (70, 61))


def test_some_features_are_those_of_the_whole_network() -> None:
    torch.manual_seed(1)
    whole = make("sasa_resnet14_small").eval()
    torch.manual_seed(1)
    some = make("sasa_resnet14_small", features_only=True, out_indices=(1, 3)).eval()
    batch = images()
    expected = whole.features(batch)
    for found, stage in zip(some(batch), ("layer2", "layer4"), strict=True):
        assert torch.equal(found, expected[stage])
    assert not hasattr(some, "fc")


@pytest.mark.parametrize("name", KINDS)
def test_intermediates_are_those_of_the_forward_pass(name: str) -> None:
    model = make(name).eval()
    batch = images()
    last, maps = model.forward_intermediates(batch)
    info = FeatureInfo(model.feature_info, len(model.feature_info))
    assert torch.equal(last, model.forward_features(batch))
    assert torch.equal(last, maps[-1])
    assert [found.shape[1] for found in maps] == info.channels()
    (second,) = model.forward_intermediates(batch, indices=[1], stop_early=True, intermediates_only=True)
    assert torch.equal(second, maps[1])
    two = model.forward_intermediates(batch, indices=2, intermediates_only=True)
    assert [torch.equal(a, b) for a, b in zip(two, maps[2:], strict=True)] == [True, True]


def test_intermediates_have_one_format() -> None:
    with pytest.raises(ArgumentError, match="output_fmt must be 'NCHW'; got 'NHWC'"):
        make("sasa_resnet14_small").forward_intermediates(images(), output_fmt="NHWC")


def test_pruned_network_ends_at_the_last_feature() -> None:
    model = make("sasa_resnet14_small").eval()
    batch = images()
    expected = model.features(batch)
    assert model.prune_intermediate_layers([0, 1]) == [0, 1]
    assert torch.equal(model(batch), expected["layer2"])
    assert model.num_features == expected["layer2"].shape[1]
    assert len(model.layer3) == len(model.layer4) == 0


@pytest.mark.parametrize("name", ["sasa_resnet14_small", "sasa_resnet26"])
def test_one_channel(name: str) -> None:
    model = make(name, in_chans=1, num_classes=3).eval()
    assert model(images(1, 1, 32, 32)).shape == (1, 3)
    assert model.in_chans == model.config.in_channels == 1


@pytest.mark.parametrize("name", KINDS)
def test_checkpointing_changes_memory_alone(name: str) -> None:
    model = make(name, num_classes=3).train()
    batch = images()
    runs = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        logits = model(batch)
        logits.square().sum().backward()
        runs.append([logits, *(p.grad for p in model.parameters())])
    for plain, checkpointed in zip(*runs, strict=True):
        torch.testing.assert_close(plain, checkpointed)
    features = make(name, features_only=True).train()
    features.set_grad_checkpointing(True)
    assert features(batch)[-1].requires_grad


def test_dropping_happens_in_training_alone() -> None:
    model = make("sasa_resnet26_small", drop_path_rate=0.5, drop_rate=0.5, num_classes=3)
    rates = [m.probability for m in model.modules() if type(m).__name__ == "DropPath"]
    assert (rates[0], rates[-1], model.config.drop_path) == (0.0, 0.5, 0.5)
    batch = images(4, 3, 16, 16)
    model.eval()
    assert torch.equal(model(batch), model(batch))
    model.train()
    features = model.forward_features(batch)
    assert (model.forward_head(features, pre_logits=True) == 0).any()


def test_weights_fit_our_networks_and_come_from_them() -> None:
    torch.manual_seed(3)
    theirs = make("lookaround_resnet14_small", num_classes=4).eval()
    ours = lookaround.create_model("resnet14_small", num_classes=4, **NARROW).eval()
    assert list(theirs.state_dict()) == list(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    batch = images()
    assert isinstance(theirs, ResNet)
    assert theirs.config == ours.config
    torch.testing.assert_close(ours(batch), theirs(batch))


def test_parameters_are_grouped_by_depth() -> None:
    model = make("sasa_resnet14_small")
    coarse = group_parameters(model, model.group_matcher(coarse=True), reverse=True)
    assert [coarse[key] for key in ("stem.bn.weight", "layer1.0.bn1.weight", "layer4.0.bn1.weight")] == [
        0,
        1,
        4,
    ]
    assert coarse["fc.weight"] == 5
    fine = group_parameters(make("sasa_resnet26_small"), model.group_matcher(), reverse=True)
    assert max(fine.values()) == 1 + sum((1, 2, 4, 1))


def test_tables_of_positions_do_not_decay() -> None:
    model = make("sasa_resnet14_small")
    names = model.no_weight_decay()
    assert {"layer1.0.spatial.row_embedding", "stem.mixture_embedding"} < names
    assert names < set(dict(model.named_parameters()))
    optimizer = create_optimizer_v2(model, opt="sgd", lr=0.1, weight_decay=0.1, layer_decay=0.5)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    table, weight = model.layer1[0].spatial.row_embedding, model.layer1[0].conv1.weight
    assert (decays[id(table)], decays[id(weight)]) == (0.0, 0.1)


@pytest.mark.usefixtures("shapes_unchecked")  # a traced tensor is none
@pytest.mark.parametrize("name", KINDS)
def test_torch_fx_traces_the_network(name: str) -> None:
    model = make(name, num_classes=3).eval()
    batch = images()
    nodes = get_graph_node_names(model)[1]
    traced = create_feature_extractor(model, nodes[-1:])
    (logits,) = traced.eval()(batch).values()
    assert torch.equal(logits, model(batch))
    (logits,) = traced.train()(batch).values()
    logits.mean().backward()
    assert [key for key, p in traced.named_parameters() if p.grad is None] == []
    features = make(name, features_only=True, feature_cls="fx").eval()
    assert [found.shape[1] for found in features(batch)] == features.feature_info.channels()


def test_overrides_are_passed_on_and_checked() -> None:
    model = make("sasa_resnet26", attention_stages=[3, 4], kernel_size=5, dtype=torch.float64)
    assert (model.config.attention_stages, model.config.kernel_size) == ((3, 4), 5)
    assert model.fc.weight.dtype == model.layer1[0].conv1.weight.dtype == torch.float64
    with pytest.raises(UnknownNameError, match="overrides must be known; got 'output_stride'"):
        make("sasa_resnet26", output_stride=16)
    with pytest.raises(ArgumentError, match="in_channels must be given by timm's name for it, in_chans"):
        make("sasa_resnet26", in_channels=1)


def test_no_weights_to_load_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="No pretrained weights exist for sasa_resnet50"):
        make("sasa_resnet50", pretrained=True)


@pytest.mark.parametrize("name", ["sasa_resnet14_small.digits", "sasa_resnet14_small"])
def test_weights_that_come_with_the_package_are_tags(name: str) -> None:
    ours, record = lookaround.models.load_model("digits")
    theirs = timm.create_model(name, pretrained=True).eval()
    batch = images(2, 1, 8, 8)
    assert torch.equal(theirs(batch), ours(batch))
    cfg = theirs.pretrained_cfg
    assert (cfg["tag"], list(cfg["label_names"])) == ("digits", record.class_names)
    assert (cfg["input_size"], list(cfg["mean"])) == ((1, 8, 8), record.preprocessing["mean"])
    assert "sasa_resnet14_small.digits" in timm.list_models(pretrained=True)


def test_weights_are_adapted_as_timm_does() -> None:
    options = {"pretrained": True, "features_only": True, "out_indices": (3,)}
    grey = timm.create_model("sasa_resnet14_small.digits", **options).eval()
    colour = timm.create_model("sasa_resnet14_small.digits", in_chans=3, **options).eval()
    batch = images(2, 1, 8, 8)
    torch.testing.assert_close(colour(batch.expand(-1, 3, -1, -1)), grey(batch))
    other = timm.create_model("sasa_resnet14_small.digits", pretrained=True, num_classes=3)
    assert other.fc.out_features == 3
    untrained = timm.create_model("sasa_resnet14_small.digits")
    assert (untrained.config.width, untrained.in_chans, untrained.num_classes) == (0.25, 1, 10)
    assert make("sasa_resnet14_small").in_chans == 3


def test_first_convolutions_are_left_to_timm() -> None:
    colour = make("lookaround_resnet14_small")
    adapted = integration.adapt(colour.state_dict(), make("lookaround_resnet14_small", in_chans=1))
    assert adapted["stem.conv.weight"].shape[1] == 3


def test_making_a_model_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make("sasa_resnet14_small")
