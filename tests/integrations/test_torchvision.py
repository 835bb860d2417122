"""Our networks, and converted ones, inside torchvision's detectors and feature extractors."""

import pytest
import torch
from torch import Tensor, fx, nn

from lookaround import create_model
from lookaround.nn import LocalAttention2d, replace_convolutions

torchvision = pytest.importorskip("torchvision")

from torchvision.models._utils import IntermediateLayerGetter  # noqa: E402
from torchvision.models.detection import FasterRCNN, RetinaNet  # noqa: E402
from torchvision.models.detection.anchor_utils import AnchorGenerator  # noqa: E402
from torchvision.models.detection.backbone_utils import BackboneWithFPN  # noqa: E402
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead  # noqa: E402
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names  # noqa: E402
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7  # noqa: E402

SIZE = 64
CHANNELS = 16  # of the pyramid
NAMES = ["resnet14_small", "sasa_resnet14_convstem_small", "sasa_resnet14_small"]


def backbone(name: str = "sasa_resnet14_small") -> nn.Module:
    """Make a network that reduces 64 pixels to 8 and puts out 64, 128, 256, 512 channels."""
    return create_model(name, width=0.25, num_heads=4, kernel_size=3, num_classes=1)


def pyramid(stages: list[int], extra: nn.Module) -> BackboneWithFPN:
    layers = {f"layer{stage}": str(level) for level, stage in enumerate(stages)}
    channels = [32 * 2**stage for stage in stages]
    return BackboneWithFPN(backbone(), layers, channels, CHANNELS, extra)


def anchors(levels: int) -> AnchorGenerator:
    return AnchorGenerator(tuple((8 * 2**level,) for level in range(levels)), ((1.0,),) * levels)


def faster_rcnn() -> nn.Module:
    head, predictor = TwoMLPHead(CHANNELS * 49, 32), FastRCNNPredictor(32, 3)
    network = pyramid([1, 2, 3, 4], LastLevelMaxPool())
    options = {"box_head": head, "box_predictor": predictor, "rpn_anchor_generator": anchors(5)}
    return FasterRCNN(network, min_size=SIZE, max_size=SIZE, **options)


def retinanet() -> nn.Module:
    network = pyramid([3, 4], LastLevelP6P7(CHANNELS, CHANNELS))
    return RetinaNet(network, 3, min_size=SIZE, max_size=SIZE, anchor_generator=anchors(4))


def step(model: nn.Module, loss: Tensor) -> None:
    """Train one step, and hold that it moved every parameter of the attention that got a gradient."""
    attention = [m for m in model.modules() if isinstance(m, LocalAttention2d)]
    parameters = [parameter for layer in attention for parameter in layer.parameters()]
    assert parameters
    before = [parameter.detach().clone() for parameter in parameters]
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in parameters)
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    moved = [not torch.equal(now, then) for now, then in zip(parameters, before, strict=True)]
    assert any(moved)


@pytest.mark.parametrize("make", [faster_rcnn, retinanet])
def test_a_detector_trains_and_finds(make) -> None:
    model = make()
    wake(model)
    images = [torch.rand(3, SIZE, 48), torch.rand(3, 48, SIZE)]
    boxes = torch.tensor([[8.0, 8.0, 32.0, 40.0]])
    targets = [{"boxes": boxes, "labels": torch.tensor([1])}, {"boxes": boxes, "labels": torch.tensor([2])}]
    losses = model(images, targets)
    assert all(torch.isfinite(loss) for loss in losses.values())
    step(model, sum(losses.values()))
    with torch.no_grad():
        found = model.eval()(images)
    assert [sorted(each) for each in found] == [["boxes", "labels", "scores"]] * 2


def wake(model: nn.Module) -> None:
    """Let the blocks be more than identities, which they are at the start."""
    for name, parameter in model.named_parameters():
        if name.endswith("bn3.weight"):
            nn.init.ones_(parameter)


@pytest.mark.parametrize("name", NAMES)
def test_intermediate_layers(name: str) -> None:
    model = backbone(name).eval()
    images = torch.randn(2, 3, 32, 32)
    layers = IntermediateLayerGetter(model, {"layer1": "fine", "layer4": "coarse"})
    found, expected = layers(images), model.features(images)
    assert torch.equal(found["fine"], expected["layer1"])
    assert torch.equal(found["coarse"], expected["layer4"])


def test_intermediate_layers_train() -> None:
    model = IntermediateLayerGetter(backbone(), {"layer2": "map"})
    wake(model)
    step(model, model(torch.randn(2, 3, 32, 32))["map"].square().mean())


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_feature_extractor(name: str, training: bool) -> None:
    model = backbone(name)
    extractor = create_feature_extractor(model, {"stem": "first", "layer3": "map", "fc": "logits"})
    model.train(training)
    extractor.train(training)
    for size in (32, 40):  # no size is fixed by tracing
        images = torch.randn(2, 3, size, size)
        found, expected = extractor(images), model.features(images)
        torch.testing.assert_close(found["first"], expected["stem"])
        torch.testing.assert_close(found["map"], expected["layer3"])
        assert found["logits"].shape == (2, 1)


@pytest.mark.usefixtures("shapes_unchecked")
def test_feature_extractor_trains() -> None:
    model = create_feature_extractor(backbone(), {"layer2": "map"})
    wake(model)
    step(model, model(torch.randn(2, 3, 32, 32))["map"].square().mean())


@pytest.mark.usefixtures("shapes_unchecked")
def test_blocks_are_nodes() -> None:
    train, evaluate = get_graph_node_names(backbone())
    assert train == evaluate
    assert train == ["images", "stem", *(f"layer{n}.0" for n in (1, 2, 3, 4)), "avgpool", "flatten", "fc"]


@pytest.mark.usefixtures("shapes_unchecked")
def test_a_converted_network_is_traced() -> None:
    model = torchvision.models.resnet.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1])
    replace_convolutions(model, (3, 4), kernel_size=3)
    extractor = create_feature_extractor(model, ["layer3.0.conv2", "layer4"])
    found = extractor(torch.randn(2, 3, 64, 64))
    assert found["layer3.0.conv2"].shape == (2, 256, 4, 4)
    step(extractor, found["layer4"].square().mean())


@pytest.mark.usefixtures("shapes_unchecked")
def test_tracing_keeps_a_padding_mask() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = LocalAttention2d(8, 8, 3, num_heads=2)

        def forward(self, x, mask):
            return self.layer(x, mask)

    model = Masked()
    x, mask = torch.randn(1, 8, 4, 5), torch.zeros(1, 4, 5, dtype=torch.bool)
    mask[..., 3:] = True
    assert torch.equal(fx.symbolic_trace(model)(x, mask), model(x, mask))
