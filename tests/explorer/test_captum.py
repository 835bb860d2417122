"""captum's attributions run on the networks, and add up where they must."""

import pytest
import torch
from torch import Tensor, nn

from lookaround import create_model

attr = pytest.importorskip("captum.attr")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:captum")

NAMES = ["resnet14_small", "sasa_resnet14_convstem_small", "sasa_resnet14_small"]
CUTS = ["stem", "layer1", "layer3.0", "layer4"]  # all that the classes depend on goes through each of them
INSIDE = ["layer2.0.spatial", "layer2.0.bn2"]
TINY = {"width": 0.25, "num_classes": 3, "kernel_size": 3, "in_channels": 1, "num_heads": 2}


def network(name: str) -> nn.Module:
    """Make a network whose blocks do something: a new one's end in norms of weight zero."""
    model = create_model(name, **TINY)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model.eval()


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest) -> nn.Module:
    return network(request.param)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 1, 8, 8)


@torch.no_grad()
def rise(model: nn.Module, images: Tensor) -> Tensor:
    """Return how much higher the logit of class 1 is than for black images."""
    return model(images)[:, 1] - model(torch.zeros_like(images))[:, 1]


def test_integrated_gradients_of_the_image_add_up(model, images) -> None:
    given = attr.IntegratedGradients(model).attribute(images, target=1, n_steps=32)
    assert given.shape == images.shape
    torch.testing.assert_close(given.flatten(1).sum(1), rise(model, images), rtol=0.1, atol=3e-3)


@pytest.mark.parametrize("name", CUTS)
def test_attributions_of_a_whole_layer_add_up(model, images, name: str) -> None:
    layer, expected = model.get_submodule(name), rise(model, images)
    integrated = attr.LayerIntegratedGradients(model, layer).attribute(images, target=1, n_steps=32)
    assert integrated.shape == layer_output(model, layer, images).shape
    torch.testing.assert_close(integrated.flatten(1).sum(1), expected, rtol=0.05, atol=1e-3)
    conductance = attr.LayerConductance(model, layer).attribute(images, target=1, n_steps=32)
    torch.testing.assert_close(conductance.flatten(1).sum(1), expected, rtol=0.1, atol=3e-3)


def layer_output(model: nn.Module, layer: nn.Module, images: Tensor) -> Tensor:
    found: list[Tensor] = []
    hook = layer.register_forward_hook(lambda module, inputs, output: found.append(output.detach().clone()))
    model(images)
    hook.remove()
    return found[0]


@pytest.mark.parametrize("name", [*CUTS, *INSIDE])
def test_grad_cam_is_the_weighted_sum_of_the_maps(model, images, name: str) -> None:
    """On the last map the classes are linear in its mean, so that Grad-CAM can be written down."""
    layer = model.get_submodule(name)
    found = attr.LayerGradCam(model, layer).attribute(images, target=1)
    maps = layer_output(model, layer, images)
    assert found.shape == (2, 1, *maps.shape[-2:])
    assert found.abs().sum() > 0
    assert attr.LayerAttribution.interpolate(found, (8, 8)).shape == images.shape
    if name == "layer4":
        size = maps.shape[-2] * maps.shape[-1]
        expected = (maps * model.fc.weight[1][:, None, None]).sum(1, keepdim=True) / size
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["InternalInfluence", "LayerGradientXActivation", "LayerActivation"])
def test_further_attributions_of_attention_layers_run(model, images, name: str) -> None:
    layer = model.layer2[0].spatial
    arguments = {} if name == "LayerActivation" else {"target": 1}
    arguments |= {"n_steps": 4} if name == "InternalInfluence" else {}
    found = getattr(attr, name)(model, layer).attribute(images, **arguments)
    assert found.shape == layer_output(model, layer, images).shape
    assert torch.isfinite(found).all()


def test_a_training_step_with_fused_norms_gives_the_same_attributions() -> None:
    """The passes that training fuses step aside where somebody watches, and are right where nobody does."""
    model, images = network("sasa_resnet14_small").train(), torch.randn(8, 1, 16, 16)
    fused = attr.LayerGradCam(model, model.layer3).attribute(images, target=1)
    hooks = [m.register_forward_hook(lambda *_: None) for m in model.modules() if isinstance(m, nn.ReLU)]
    apart = attr.LayerGradCam(model, model.layer3).attribute(images, target=1)
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(fused, apart, rtol=1e-3, atol=1e-5)


class BestAnchor(nn.Module):
    """Puts the highest logit of each class at one level of a detector in the place of a classifier's."""

    def __init__(self, detector: nn.Module, level: int) -> None:
        super().__init__()
        self.detector, self.level = detector, level

    def forward(self, images: Tensor) -> Tensor:
        return self.detector.network(images)["cls_logits"][self.level].amax(1)


def test_a_detector_is_explained_through_its_logits() -> None:
    options = {"width": 0.25, "pyramid_channels": 8, "num_heads": 2, "kernel_size": 3, "num_classes": 2}
    detector = create_model("sasa_retinanet_resnet14_small", **options).eval()
    model, images = BestAnchor(detector, 0), torch.randn(1, 3, 32, 32)
    layer = detector.backbone.body.layer3
    assert attr.LayerGradCam(model, layer).attribute(images, target=1).shape == (1, 1, 2, 2)
    assert attr.Saliency(model).attribute(images, target=1).abs().sum() > 0


def test_what_does_not_run_fails_as_the_page_says(images) -> None:
    """When one of these begins to work, docs/explain.md has to say so."""
    model = network("sasa_resnet14_small")
    with pytest.raises(RuntimeError, match="module is being used more than once in the network"):
        attr.DeepLift(model).attribute(images, target=1)
    with pytest.raises(TypeError, match="no rule"):
        attr.LRP(model).attribute(images, target=1)
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad is being used in an in-place"):
        attr.LayerIntegratedGradients(model, model.layer2[0].bn2).attribute(images, target=1, n_steps=2)
    with pytest.raises(AssertionError, match="did not obtain any outputs"):
        attr.LayerGradCam(model, model.layer2[0].spatial.projection).attribute(images, target=1)
