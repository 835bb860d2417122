"""The networks: shapes, the baseline beside torchvision's, and what the overrides change."""

import re

import pytest
import torch
from torch import Tensor, nn

from lookaround.errors import ShapeError
from lookaround.models import create_model, list_models
from lookaround.models.resnet import ResNet
from lookaround.nn import AttentionStem, ConvStem, DropPath, LocalAttention2d

SMALL = {"width": 0.25, "num_classes": 5}
FAMILIES = ["resnet26", "sasa_resnet26", "sasa_resnet26_convstem"]


@torch.no_grad()
@pytest.mark.parametrize("name", list_models(task="classification"))
def test_every_named_model_runs(name: str) -> None:
    model = create_model(name, num_classes=7, in_channels=1, width=0.25).eval()
    size = 28 if name.endswith("_small") else 64
    logits = model(torch.randn(2, 1, size, size))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()
    assert logits.std() > 0


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "channels", "strides"),
    [
        ("resnet26", (64, 256, 512, 1024, 2048), (4, 4, 8, 16, 32)),
        ("sasa_resnet26", (64, 256, 512, 1024, 2048), (4, 4, 8, 16, 32)),
        ("sasa_resnet14_convstem_small", (64, 256, 512, 1024, 2048), (1, 1, 2, 4, 8)),
    ],
)
def test_features_have_these_names_and_shapes(name: str, channels: tuple, strides: tuple) -> None:
    model, x = create_model(name, num_classes=3).eval(), torch.randn(1, 3, 32, 64)
    features = model.features(x)
    assert list(features) == ["stem", "layer1", "layer2", "layer3", "layer4"]
    for feature, wide, stride in zip(features.values(), channels, strides, strict=True):
        assert feature.shape == (1, wide, 32 // stride, 64 // stride)
    torch.testing.assert_close(model.fc(features["layer4"].mean((2, 3))), model(x))


@pytest.mark.parametrize("size", [(45, 61), (1, 1), (5, 33)])
@pytest.mark.parametrize("name", [*FAMILIES, "sasa_resnet14_small", "resnet14_small"])
def test_images_of_any_size_work(name: str, size: tuple[int, int]) -> None:
    model = create_model(name, **SMALL)
    model(torch.randn(2, 3, *size)).square().sum().backward()
    features = model.eval().features(torch.randn(1, 3, *size))
    reach = 1 if name.endswith("_small") else 4
    for feature, stride in zip(features.values(), (1, 1, 2, 4, 8), strict=True):
        assert feature.shape[-2:] == (-(-size[0] // (reach * stride)), -(-size[1] // (reach * stride)))


NAMES_IN_TORCHVISION = [
    (r"^stem\.conv\.", "conv1."),
    (r"^stem\.bn\.", "bn1."),
    (r"\.spatial\.", ".conv2."),
]


def name_in_torchvision(name: str) -> str:
    for pattern, replacement in NAMES_IN_TORCHVISION:
        name = re.sub(pattern, replacement, name)
    return name


@torch.no_grad()
def test_the_baseline_is_the_resnet50_of_torchvision() -> None:
    from torchvision.models import resnet50

    theirs, mine = resnet50(num_classes=10), create_model("resnet50", num_classes=10)
    for name, value in theirs.state_dict().items():  # statistics as after training
        if "running" in name or re.search(r"bn\d\.|downsample\.1\.", name):
            value.copy_(torch.rand_like(value) * 0.5 + 0.5 if value.is_floating_point() else value)
    state = theirs.state_dict()
    mapped = {name: state[name_in_torchvision(name)] for name in mine.state_dict()}
    assert len(mapped) == len(state)
    mine.load_state_dict(mapped, strict=True)
    x = torch.randn(2, 3, 45, 61)
    expected = theirs.eval()(x)
    torch.testing.assert_close(mine.eval()(x), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def attends(model: ResNet) -> list[bool]:
    """Say for every stage whether all (True) or none (False) of its blocks attend."""
    stages = (model.layer1, model.layer2, model.layer3, model.layer4)
    kinds = [{isinstance(block.spatial, LocalAttention2d) for block in stage} for stage in stages]
    assert all(len(kind) == 1 for kind in kinds)
    return [kind.pop() for kind in kinds]


def test_each_family_attends_where_its_name_says() -> None:
    baseline, full, stem = (create_model(name, **SMALL) for name in FAMILIES)
    assert (attends(baseline), type(baseline.stem)) == ([False] * 4, ConvStem)
    assert (attends(full), type(full.stem)) == ([True] * 4, AttentionStem)
    assert (attends(stem), type(stem.stem)) == ([True] * 4, ConvStem)


@pytest.mark.parametrize(
    ("stages", "expected"),
    [((), [False] * 4), ((3, 4), [False, False, True, True]), ([2], [False, True, False, False])],
)
def test_the_stages_that_are_named_attend(stages, expected: list[bool]) -> None:
    model = create_model("sasa_resnet26_convstem", attention_stages=stages, **SMALL)
    assert attends(model) == expected


@pytest.mark.parametrize("layers", [26, 38, 50])
def test_depths_are_those_of_the_paper(layers: int) -> None:
    depths = {26: [1, 2, 4, 1], 38: [2, 3, 5, 2], 50: [3, 4, 6, 3]}[layers]
    for name in list_models(f"*resnet{layers}*", task="classification"):
        with torch.device("meta"):
            model = create_model(name)
        assert [len(stage) for stage in (model.layer1, model.layer2, model.layer3, model.layer4)] == depths


def test_strides_are_in_the_spatial_layer() -> None:
    for name in FAMILIES:
        model = create_model(name, **SMALL)
        strides = {
            (block.spatial.stride, block.conv1.stride)
            for block in (s[0] for s in (model.layer2, model.layer4))
        }
        assert strides == {((2, 2), (1, 1))}
        assert model.layer1[0].spatial.stride == (1, 1)


def test_options_reach_every_attention_layer() -> None:
    options = {
        "kernel_size": (3, 5),
        "num_heads": 4,
        "position": "relative",
        "content": False,
        "border": "zeros",
    }
    model = create_model("sasa_resnet26", shared_tables=False, backend="reference", **options, **SMALL)
    layers = [module for module in model.modules() if isinstance(module, LocalAttention2d)]
    assert len(layers) == 8
    for layer in layers:
        assert {name: getattr(layer, name) for name in options} == options
        assert (layer.shared_tables, layer.backend) == (False, "reference")


@pytest.mark.parametrize("values", ["spatially_aware", "plain", "convolution"])
def test_stem_values_reach_the_stem(values: str) -> None:
    assert create_model("sasa_resnet26", stem_values=values, **SMALL).stem.values == values


def test_width_scales_all_channels() -> None:
    model = create_model("sasa_resnet26", width=0.5, num_classes=5)
    outputs = [
        stage[-1].conv3.out_channels for stage in (model.layer1, model.layer2, model.layer3, model.layer4)
    ]
    assert (model.stem.out_channels, outputs) == (32, [128, 256, 512, 1024])


def test_stochastic_depth_grows_linearly() -> None:
    model = create_model("resnet26", drop_path=0.7, **SMALL)
    found = [module.probability for module in model.modules() if isinstance(module, DropPath)]
    assert found == pytest.approx([0.1 * block for block in range(8)])
    x = torch.randn(32, 3, 32, 32)
    nn.init.ones_(model.layer4[0].bn3.weight)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_momentum_reaches_every_batch_norm() -> None:
    for name in FAMILIES:
        model = create_model(name, batch_norm_momentum=0.0001, **SMALL)
        assert {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {0.0001}


def test_blocks_begin_as_the_identity() -> None:
    model = create_model("sasa_resnet26_convstem", **SMALL)
    x = torch.randn(2, 64, 6, 6).relu()
    assert torch.equal(model.layer3[1](x.repeat(1, 4, 1, 1)), x.repeat(1, 4, 1, 1))


def gradients(model: ResNet, x: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    model(x).square().sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_learns(name: str) -> None:
    model = create_model(name, **SMALL)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1)  # at zero, the blocks' own parameters would wait a step
    for parameter, gradient in gradients(model, torch.randn(4, 3, 64, 64)).items():
        assert gradient.isfinite().all(), parameter
        assert torch.count_nonzero(gradient) > 0, parameter


def test_features_of_a_convolutional_network_keep_channels_last() -> None:
    model = create_model("sasa_resnet26", **SMALL).to(memory_format=torch.channels_last).eval()
    x = torch.randn(2, 3, 64, 64)
    out = model.features(x.to(memory_format=torch.channels_last))["layer4"]
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, model.features(x)["layer4"])


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize("name", FAMILIES)
def test_images_of_other_channels_are_refused(name: str) -> None:
    with pytest.raises(
        ShapeError, match=r"x must have the shape \(batch, 3, height, width\); got \(1, 1, 32, 32\)"
    ):
        create_model(name, **SMALL)(torch.zeros(1, 1, 32, 32))
