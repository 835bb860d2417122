import pytest
import torch
from torch import nn

from lookaround import create_model
from lookaround.errors import ArgumentError
from lookaround.models import fuse


def trained_like(name: str, **overrides: object) -> nn.Module:
    """Make a model whose batch norms are no identities, as after training."""
    torch.manual_seed(0)
    model = create_model(name, width=0.25, num_classes=7, num_heads=4, **overrides)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model.double().eval()


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("resnet14_small", {}),
        ("sasa_resnet14_convstem_small", {}),
        ("sasa_resnet14_convstem_small", {"border": "zeros", "content": False}),
        ("sasa_resnet14_small", {}),
        ("sasa_resnet14_small", {"stem_values": "plain", "small": False}),
        ("sasa_resnet14_small", {"stem_values": "convolution"}),
    ],
)
def test_a_fused_model_computes_the_same_without_batch_norm(name, overrides):
    model = trained_like(name, **overrides)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images = torch.randn(2, 3, 33, 30, dtype=torch.float64)
    fused = fuse(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    torch.testing.assert_close(fused(images), model(images), rtol=1e-9, atol=1e-9)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_model_in_training_mode_is_refused():
    with pytest.raises(
        ArgumentError, match=r"must be in eval mode; got training mode(.|\n)*hint: call .eval"
    ):
        fuse(create_model("sasa_resnet14_small", width=0.25))


@pytest.mark.parametrize("name", ["resnet14_small", "sasa_resnet14_small"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_convolutions_agree_in_every_dtype(name, dtype):
    model = create_model(name, width=0.25, num_heads=4, num_classes=7).eval()
    images = torch.randn(2, 3, 28, 28)
    expected = model(images).detach()
    with torch.no_grad():
        logits = fuse(model).to(dtype)(images.to(dtype))
    assert logits.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(
        logits.float(), expected, rtol=tolerance, atol=tolerance * expected.abs().max()
    )
