"""The networks of the benchmark, in the forms in which each is at its best."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lookaround.models import ResNet, create_model, fuse
from lookaround.models.costs import model_costs
from lookaround.studies.bench_context import Bench

BASELINE = "torchvision resnet50"
NETWORKS = ("sasa_resnet50_convstem", "sasa_resnet50")
QUICK_BASELINE = "torchvision one block a stage"
QUICK_NETWORKS = ("sasa_resnet14_convstem_small", "sasa_resnet14_small")


def network_names(bench: Bench) -> list[str]:
    """Those that are measured; the baseline first."""
    return [QUICK_BASELINE, *QUICK_NETWORKS] if bench.settings.quick else [BASELINE, *NETWORKS]


def make_network(name: str) -> nn.Module:
    """Make a network with parameters of its initial distribution, in float32 on the processor."""
    if name in (BASELINE, QUICK_BASELINE):
        import torchvision

        if name == BASELINE:
            model: nn.Module = torchvision.models.resnet50()
        else:
            block = torchvision.models.resnet.Bottleneck
            model = torchvision.models.ResNet(block, [1, 1, 1, 1], width_per_group=16)
    else:
        model = create_model(name, **_overrides(name))
    return without_zeros(model).to(memory_format=torch.channels_last)


def _overrides(name: str) -> dict[str, Any]:
    return {"width": 0.25} if name in QUICK_NETWORKS else {}


def without_zeros(model: nn.Module) -> nn.Module:
    """Let every branch count: a batch norm that starts at zero would hide differences and multiply zeros.

    Branches stay weaker than the shortcuts around them, or fifty layers of random attention would make noise
    out of rounding.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            strength = 0.2 if name.endswith(".bn3") else 1.0
            nn.init.uniform_(module.weight, strength / 2, strength)
    return model


def settle(model: nn.Module, images: Tensor) -> nn.Module:
    """Give the batch norms the statistics of real activations, and set the evaluation mode."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(images)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    return model.eval()


def fold(model: nn.Module) -> nn.Module:
    """Return a copy for inference whose batch norms are folded into the layers before them."""
    if isinstance(model, ResNet):
        folded: nn.Module = fuse(model)
    else:
        from torch.fx.experimental.optimization import fuse as fuse_traced

        folded = fuse_traced(model)
    return folded.eval().to(memory_format=torch.channels_last)


def compile_network(model: nn.Module, *, frozen: bool) -> nn.Module:
    """Compile for sizes that stay; frozen weights are constants, packed for the processor ahead of time."""
    options: dict[str, str | int | bool | Callable[..., Any]] = {"freezing": True} if frozen else {}
    compiled: nn.Module = torch.compile(model, dynamic=False, options=options)  # type: ignore[assignment]
    return compiled


def executed_flops(name: str, image_size: int) -> int | None:
    """FLOPs of one image, as executed; of torchvision's network those of ours with the same layers."""
    if name == QUICK_BASELINE:
        return None
    model = create_model("resnet50" if name == BASELINE else name, **_overrides(name))
    return model_costs(model, image_size).executed_flops


def training_step(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], Tensor]:
    """A step of SGD with momentum, forward and backward pass included, as work to time; gives the loss."""
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, weight_decay=1e-4, nesterov=True)
    model.train()

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step
