"""The detectors of the benchmark: the forms of the paper's Table 2, and torchvision's RetinaNet."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lookaround.models import create_model, fuse
from lookaround.models.costs import model_costs
from lookaround.models.paper_detection_rows import NUM_CLASSES, PAPER_DETECTION_ROWS
from lookaround.studies import networks

BASELINE = "torchvision retinanet_resnet50_fpn"
QUICK_BASELINE = "torchvision retinanet, one block a stage"
QUICK_MODELS = {
    "retinanet_resnet50": "retinanet_resnet14_small",
    "sasa_retinanet_resnet50_convstem": "sasa_retinanet_resnet14_convstem_small",
    "sasa_retinanet_resnet50": "sasa_retinanet_resnet14_small",
}
FEWEST_CLASSES = 3
QUICK_OVERRIDES = {"width": 0.125, "num_heads": 2, "pyramid_channels": 8, "num_classes": FEWEST_CLASSES}
SETTLE_SIZE = 128  # pixels, at which the batch norms are given their statistics
OBJECTS = 8  # of each image of a training step
Images = list[Tensor]


@dataclass(frozen=True)
class Form:
    """A detector by what its parts are made of.

    Attributes:
        name: of the contestant.
        heads: "convolution" or "attention".
        backbone: in the paper's words.
        model: the named model.
        overrides: what `create_model` needs besides.
    """

    name: str
    heads: str
    backbone: str
    model: str
    overrides: dict[str, Any]


def _forms() -> dict[str, Form]:
    forms = []
    for row in PAPER_DETECTION_ROWS:
        heads, _, backbone = row.label.partition(", ")
        name = f"{heads} heads, {backbone}"
        forms.append(Form(name, heads, backbone, row.model, row.overrides))
        small = row.overrides | QUICK_OVERRIDES
        forms.append(Form(f"small {name}", heads, backbone, QUICK_MODELS[row.model], small))
    return {form.name: form for form in forms}


FORMS = _forms()


def detector_names(*, quick: bool) -> list[str]:
    """Those that are measured; the baseline first."""
    baseline = QUICK_BASELINE if quick else BASELINE
    return [baseline, *(name for name in FORMS if name.startswith("small ") == quick)]


def make_detector(name: str, image_size: int) -> nn.Module:
    """Make a detector with parameters of its initial distribution, in float32 on the processor.

    Args:
        name: of `detector_names`.
        image_size: side of the square images that it will be given; they are not resized.
    """
    if name in FORMS:
        form = FORMS[name]
        model: nn.Module = create_model(form.model, **form.overrides)
    else:
        model = _torchvision_detector(name == QUICK_BASELINE, image_size)
    return networks.without_zeros(model).to(memory_format=torch.channels_last)


def _torchvision_detector(quick: bool, image_size: int) -> nn.Module:
    from torchvision.models import detection, resnet
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    sizes = {"min_size": image_size, "max_size": image_size}
    if not quick:
        full: nn.Module = detection.retinanet_resnet50_fpn(
            weights=None, weights_backbone=None, num_classes=NUM_CLASSES, **sizes
        )
        return full
    body = resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], width_per_group=8)
    stages = {"layer2": "0", "layer3": "1", "layer4": "2"}
    backbone = BackboneWithFPN(body, stages, [512, 1024, 2048], 32, LastLevelP6P7(32, 32))
    small: nn.Module = detection.RetinaNet(backbone, FEWEST_CLASSES, **sizes)
    return small


def body_of(model: nn.Module) -> nn.Module:
    """Return the backbone below the pyramid."""
    return cast(nn.Module, cast(nn.Module, model.backbone).body)


def settle(model: nn.Module) -> nn.Module:
    """Give the backbone's batch norms the statistics of real activations, and set the evaluation mode."""
    networks.settle(body_of(model), torch.randn(2, 3, SETTLE_SIZE, SETTLE_SIZE))
    return model.eval()


def fold(model: nn.Module) -> nn.Module:
    """Return a copy for inference whose backbone has its batch norms folded into the layers before them.

    Those of pyramid and heads stay: every level has its own, behind a layer that all of them share.
    """
    folded = copy.deepcopy(model)
    body = body_of(folded)
    backbone = cast(nn.Module, folded.backbone)
    if hasattr(model, "config"):
        backbone.body = fuse(cast(Any, body))
    else:
        from torch.fx.experimental.optimization import fuse as fuse_traced

        backbone.body = fuse_traced(body)
    return folded.eval().to(memory_format=torch.channels_last)


def pyramid_maps(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Return the maps of the levels, from which the heads predict."""
    with torch.no_grad():
        found = cast(nn.Module, model.backbone)(images)
    return list(found.values()) if isinstance(found, dict) else list(found[0])


def detect(model: nn.Module, images: Images) -> Callable[[], object]:
    """Inference as work to time: from images to boxes."""

    def call() -> object:
        with torch.no_grad():
            return model(images)

    return call


def make_images(batch: int, size: int, device: torch.device, dtype: torch.dtype) -> Images:
    """Draw square images; channels-last, as a decoder leaves them."""
    images = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
    return list(images.to(device=device, dtype=dtype))


def make_targets(images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    """Draw objects for square images: sides from an eighth to a half of the image's, at random places."""
    targets = []
    for image in images:
        side = image.shape[-1]
        sizes = side * (0.125 + 0.375 * torch.rand(OBJECTS, 2))
        corners = torch.rand(OBJECTS, 2) * (side - sizes)
        labels = torch.randint(0, FEWEST_CLASSES, (OBJECTS,)).to(image.device)
        boxes = torch.cat([corners, corners + sizes], dim=1).to(image.device)
        targets.append({"boxes": boxes, "labels": labels})
    return targets


def training_step(model: nn.Module, images: Images) -> Callable[[], Tensor]:
    """A step of SGD with momentum, forward and backward pass included, as work to time; gives the loss."""
    targets = make_targets(images)
    # A rate so low that random weights on random images stay where they are, however long it is measured.
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9, weight_decay=1e-4, nesterov=True)
    model.train()

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss: Tensor = sum(model(images, targets).values(), torch.zeros((), device=images[0].device))
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def count_parameters(name: str, image_size: int) -> int:
    """Trainable numbers."""
    with torch.device("meta"):
        model = make_detector(name, image_size)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def executed_flops(name: str, image_size: int) -> int:
    """FLOPs of one image, as executed by the layers: two for each multiply-add, three for a batch norm."""
    with torch.device("meta"):
        model = make_detector(name, image_size).eval()
        if name in FORMS:
            return model_costs(cast(Any, model), image_size).executed_flops
        norms: list[int] = []
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_hook(lambda _, __, out: norms.append(3 * out.numel()))
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            maps = pyramid_maps(model, torch.empty(1, 3, image_size, image_size))
            cast(nn.Module, model.head)(maps)
    return int(counter.get_total_flops()) + sum(norms)
