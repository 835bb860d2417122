"""Convolutions give way to attention: what is replaced, what is kept of it, what stays and why."""

import copy
import re

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from lookaround.errors import ArgumentError, UnknownNameError
from lookaround.nn import LocalAttention2d, replace_convolutions
from lookaround.nn.flops import count_flops
from lookaround.nn.selection import stage_of


def conv(channels: int = 8, out_channels: int = 8, size: int = 3, **options) -> nn.Conv2d:
    return nn.Conv2d(channels, out_channels, size, **{"padding": "same", **options})


def convert(module: nn.Module, **options):
    """Convert a network of this one module."""
    model = nn.Sequential(module)
    return model, replace_convolutions(model, **{"num_heads": 2, "kernel_size": 5, **options})


def reasons(module: nn.Module, **options) -> str:
    """Say why the only convolution of a network stays, and hold that it does."""
    model, report = convert(module, **options)
    assert model[0] is module
    assert report.replaced == ()
    (left,) = report.left
    return "; ".join(left.reasons)


@pytest.mark.parametrize("size", [1, 2, 5, 8, 9])
@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {"padding": 1, "stride": 2},
        {"padding": 1, "stride": (3, 2)},
        {"padding": 3, "dilation": 3},
        {"padding": (1, 2), "dilation": (1, 2), "stride": 2},
        {"padding": "same", "dilation": 2},
        {"padding": (0, 1), "size": (1, 3)},
    ],
    ids=str,
)
def test_maps_keep_their_size(size: int, options: dict) -> None:
    convolution = conv(8, 12, **options)
    x = torch.randn(2, 8, size, size + 3)
    model, report = convert(convolution, kinds="*")
    assert model(x).shape == convolution(x).shape
    assert model[0].stride == convolution.stride
    assert model[0].dilation == convolution.dilation
    assert (model[0].in_channels, model[0].out_channels) == (8, 12)
    assert len(report.replaced) == 1


def test_options_reach_the_attention() -> None:
    model, report = convert(conv(), kernel_size=(3, 5), position="absolute", border="zeros", scale=0.5)
    layer = model[0]
    assert (layer.kernel_size, layer.num_heads, layer.position) == ((3, 5), 2, "absolute")
    assert (layer.border, layer.scale) == ("zeros", 0.5)
    assert report.options["border"] == "zeros"


@pytest.mark.parametrize("training", [True, False])
def test_mode_dtype_and_device_are_kept(training: bool) -> None:
    model, _ = convert(conv(dtype=torch.float64).train(training))
    assert model[0].training is training
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    on_meta, _ = convert(conv(device="meta"))
    assert {p.device.type for p in on_meta.parameters()} == {"meta"}


def test_a_bias_is_added_as_the_convolution_did() -> None:
    convolution = conv(bias=True)
    model, _ = convert(convolution)
    x = torch.randn(1, 8, 6, 7)
    biased = model(x)
    nn.init.zeros_(model[0].projection.bias)
    torch.testing.assert_close(biased - model(x), convolution.bias[:, None, None].expand_as(biased))
    assert convert(conv(bias=False))[0][0].projection.bias is None


def test_a_shared_convolution_stays_shared() -> None:
    shared = conv()
    model = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared), "c": conv()})
    report = replace_convolutions(model, num_heads=2)
    assert model["a"] is model["b"][0]
    assert isinstance(model["a"], LocalAttention2d)
    assert model["c"] is not model["a"]
    assert [row.names for row in report.replaced] == [("a", "b.0"), ("c",)]
    assert report.replaced_names == ["a", "b.0", "c"]


def test_a_shared_convolution_needs_all_its_places() -> None:
    shared = conv()
    model = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared)})
    report = replace_convolutions(model, "a", num_heads=2)
    assert report.left[0].reasons == ("it also stands at b.0, which `where` leaves out",)
    assert model["a"] is shared


def test_hooks_move_along_and_can_be_removed() -> None:
    convolution, seen = conv(), []
    handles = [
        convolution.register_forward_hook(lambda module, inputs, output: seen.append(type(module))),
        convolution.register_forward_pre_hook(lambda m, args, kwargs: seen.append("pre"), with_kwargs=True),
        convolution.register_full_backward_hook(lambda module, into, out: seen.append("backward")),
    ]
    model, _ = convert(convolution)
    x = torch.randn(1, 8, 4, 4, requires_grad=True)
    model(x).sum().backward()
    assert seen == ["pre", LocalAttention2d, "backward"]
    for handle in handles:
        handle.remove()
    model(x).sum().backward()
    assert len(seen) == 3


def test_attention_trains_though_the_convolution_was_frozen() -> None:
    model, _ = convert(conv().requires_grad_(False))
    assert all(p.requires_grad for p in model.parameters())


class Shouting(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


def exchanged(module: nn.Conv2d) -> nn.Conv2d:
    module.forward = lambda x: x
    return module


def with_state_hook(module: nn.Conv2d) -> nn.Conv2d:
    module.register_state_dict_post_hook(lambda *arguments: None)
    return module


STAYING = {
    "1x1": (lambda: conv(size=1), "a 1x1 convolution sees no neighbours"),
    "5x5": (lambda: conv(size=5), r"its kind, '5x5', is none of `kinds` \('3x3'\)"),
    "depthwise": (lambda: conv(groups=8), r"its kind, 'depthwise 3x3', is none"),
    "grouped": (lambda: conv(groups=2), r"its kind, 'grouped 3x3', is none"),
    "valid": (lambda: conv(padding=0), r"its padding \(0, 0\) is not half of what its window spans \(2, 2\)"),
    "valid_by_name": (lambda: conv(padding="valid"), "its padding valid is not half"),
    "wide": (lambda: conv(padding=2), r"its padding \(2, 2\) is not half"),
    "one_side": (lambda: conv(padding=(1, 0)), r"its padding \(1, 0\) is not half"),
    "circular": (lambda: conv(padding_mode="circular"), "it pads by 'circular'"),
    "raw": (lambda: conv(channels=3), r"its 3 input channels are no multiple of num_heads \(2\), as raw"),
    "heads": (lambda: conv(out_channels=7), r"num_heads must divide out_channels \(7\); got 2"),
    "odd": (lambda: conv(out_channels=6), r"out_channels / num_heads must be even: .*; got 3"),
    "subclass": (lambda: Shouting(8, 8, 3, padding=1), "a Shouting may do more than nn.Conv2d"),
    "exchanged": (lambda: exchanged(conv()), "its forward was exchanged"),
    "transposed": (lambda: nn.ConvTranspose2d(8, 8, 3), "a ConvTranspose2d is no convolution of images"),
    "flat": (lambda: nn.Conv1d(8, 8, 3), "a Conv1d is no convolution of images"),
    "lazy": (lambda: nn.LazyConv2d(8, 3, padding=1), "its weight is a UninitializedParameter"),
    "complex": (lambda: conv(dtype=torch.complex64), "its weight has dtype torch.complex64"),
    "weight_norm": (lambda: weight_norm(conv()), "it is reparametrized: it holds weight_g, weight_v"),
    "spectral_norm": (lambda: spectral_norm(conv()), "it is reparametrized: it holds weight_orig"),
    "pruned": (lambda: prune.identity(conv(), "weight"), "it holds weight_mask, weight_orig"),
    "parametrized": (lambda: parametrizations.weight_norm(conv()), "it holds parametrizations"),
    "state_hook": (lambda: with_state_hook(conv()), "hooks on its state dict know its own tensors"),
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(("make", "why"), STAYING.values(), ids=STAYING)
def test_what_stays_says_why(make, why: str) -> None:
    assert re.search(why, reasons(make()))


def test_all_reasons_at_once() -> None:
    why = reasons(conv(channels=3, out_channels=7, size=5, padding=0, padding_mode="reflect"), where=sees_no)
    for part in ("its kind", "`where` leaves it out", "must divide", "it pads by", "its padding"):
        assert part in why


def sees_no(name: str, module: nn.Module) -> bool:
    return False


def test_tied_weights_stay() -> None:
    model = nn.Sequential(conv(), conv(), conv())
    model[1].weight = model[0].weight
    report = replace_convolutions(model, num_heads=2)
    assert [row.names for row in report.replaced] == [("2",)]
    assert report.left[0].reasons == ("it shares its weight or bias with another module",)


def staged() -> nn.Module:
    model = nn.Module()
    model.stem = conv(3)
    model.layer1 = nn.Sequential(conv(), conv(size=1))
    model.layer2 = nn.Sequential(conv(), nn.Sequential(conv()))
    return model


@pytest.mark.parametrize(
    ("where", "names"),
    [
        (None, ["layer1.0", "layer2.0", "layer2.1.0"]),
        (2, ["layer2.0", "layer2.1.0"]),
        ((1, 2), ["layer1.0", "layer2.0", "layer2.1.0"]),
        ("layer2", ["layer2.0", "layer2.1.0"]),
        ("*.0", ["layer1.0", "layer2.0", "layer2.1.0"]),
        ("stem", ["stem"]),
        (["stem", 1], ["stem", "layer1.0"]),
        (lambda name, module: name.endswith("1.0"), ["layer1.0", "layer2.1.0"]),
    ],
    ids=lambda value: "predicate" if callable(value) else str(value),
)
def test_where(where, names: list[str]) -> None:
    model = staged()
    assert replace_convolutions(model, where, num_heads=2).replaced_names == names
    assert [n for n, m in model.named_modules() if isinstance(m, LocalAttention2d)] == names


def test_stages_by_the_names_of_torchvision_and_timm() -> None:
    names = {
        "backbone.layer4.0.conv2": 4,
        "trunk_output.block2.block2-0.f.b.0": 2,
        "s3.b1.conv2.conv": 3,
        "stages.1.blocks.0.conv2": 2,
        "stages_1.blocks.0.conv2": 2,
        "blocks.6.0.conv_dw": 7,
        "features.denseblock2.denselayer1.conv2": 2,
        "features.5.0.block.0": None,
        "stem.conv": None,
        "layers2.0": None,
    }
    assert {name: stage_of(name) for name in names} == names


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        (
            {"where": 3},
            ArgumentError,
            r"stages must be those of the model; got 3.\nhint: .* are 1, 2; where=",
        ),
        (
            {"where": "layer3"},
            UnknownNameError,
            r"every pattern must match .*; got 'layer3'.\n.*did you mean",
        ),
        ({"where": 2.5}, ArgumentError, "where must be stages, .*; got 2.5"),
        ({"where": (2.5,)}, ArgumentError, r"where must be stages, patterns of names, or a function"),
        ({"where": ()}, ArgumentError, r"where must be stages, .*; got \(\)"),
        ({"where": True}, ArgumentError, r"where must be stages, .*; got True"),
        ({"kinds": ()}, ArgumentError, r"kinds must be patterns of kinds of convolutions; got \(\)"),
        ({"kernel_size": 4}, ArgumentError, "LocalAttention2d: kernel_size must be odd"),
        ({"num_heads": 0}, ArgumentError, "LocalAttention2d: num_heads must be an integer >= 1; got 0"),
        ({"position": "relativ"}, ArgumentError, "LocalAttention2d: position must be known"),
        ({"image_size": 0}, ArgumentError, "count_flops: image_size must be an integer >= 1"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("shapes_unchecked")
def test_wrong_options_change_nothing(options: dict, error: type[Exception], text: str) -> None:
    model = staged()
    with pytest.raises(error, match=text):
        replace_convolutions(model, **{"num_heads": 2, **options})
    assert not any(isinstance(module, LocalAttention2d) for module in model.modules())


def test_a_model_that_names_no_stages() -> None:
    with pytest.raises(ArgumentError, match=r"got 1, 2.\nhint: it names none; where='PATTERN' names modules"):
        replace_convolutions(nn.Sequential(conv()), (1, 2), num_heads=2)


def test_a_convolution_alone_cannot_be_exchanged_in_place() -> None:
    with pytest.raises(ArgumentError, match="model must be a module that holds convolutions; got the conv"):
        replace_convolutions(conv())


def test_a_wrapped_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.parallel, "DistributedDataParallel", nn.Sequential)
    with pytest.raises(ArgumentError, match="convert the model before it is wrapped"):
        replace_convolutions(nn.Sequential(conv()))


def test_a_function_that_raises_changes_nothing() -> None:
    def where(name: str, module: nn.Module) -> bool:
        return name == "0" or 1 / 0 > 0

    model = nn.Sequential(conv(), conv())
    with pytest.raises(ZeroDivisionError):
        replace_convolutions(model, where, num_heads=2)
    assert isinstance(model[0], nn.Conv2d)


def test_costs_before_and_after() -> None:
    model = nn.Sequential(conv(bias=False), nn.BatchNorm2d(8), conv(size=1, bias=False))
    report = replace_convolutions(model, num_heads=2, image_size=(5, 6))
    pixels = 30
    point = 8 * 8
    window = 2 * 49 * 8 + 2 * (7 + 7) * 2  # logits and values; rows and columns, for 2 heads of 4
    assert report.image_size == (5, 6)
    assert report.flops_before == 2 * pixels * (9 * point + point)
    assert report.flops_after == 2 * pixels * (3 * point + window + point)
    assert report.parameters_before == 9 * point + 16 + point
    assert report.parameters_after == 3 * point + 2 * 7 * 2 + 16 + point
    assert report.to_dict()["flops_after"] == report.flops_after


def test_counting_leaves_the_model_alone() -> None:
    model = nn.Sequential(conv(), nn.BatchNorm2d(8), nn.Dropout()).train()
    model[0].requires_grad_(False)
    state = copy.deepcopy(model.state_dict())
    assert count_flops(model, 4) > 0
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    assert all(module.training for module in model.modules())
    assert not model[0].weight.requires_grad


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_counting_takes_weights_that_are_computed() -> None:
    assert count_flops(nn.Sequential(weight_norm(conv(bias=False))), 4) == 2 * 16 * 9 * 64


def test_a_model_that_takes_no_such_image() -> None:
    model = nn.Sequential(conv(), nn.Flatten(), nn.Linear(8 * 16, 2))
    with pytest.raises(
        ArgumentError, match=r"count_flops: the model must take .* got 8x5x5, which it refuses"
    ):
        replace_convolutions(model, num_heads=2, image_size=5)
    assert isinstance(model[0], nn.Conv2d)


def test_the_report_as_text() -> None:
    model = nn.Sequential(conv(), conv(16, 16, 1), conv(16, 16, 1), conv(16, 16, 1), conv(16, 16, 1))
    text = str(replace_convolutions(model, num_heads=2, image_size=None))
    assert text.splitlines()[:5] == [
        "replaced 1 of 5 convolutions",
        "  0  3x3, 8 to 8 channels  -> 7x7 attention, 2 heads",
        "left 4",
        "  1, 2, 3, and 1 more",
        "    a 1x1 convolution sees no neighbours",
    ]
    assert "GFLOPs" not in text
    assert "GFLOPs at 4x4  0.000 ->" in str(
        replace_convolutions(nn.Sequential(conv()), num_heads=2, image_size=4)
    )
