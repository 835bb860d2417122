"""How the maps of a network follow from each other: the links along which attention rollout goes back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor, nn

from lookaround.explorer.flow import (
    Flow,
    Pair,
    attention_shares,
    averaging_shares,
    convolution_shares,
    pooling_shares,
    pull_enlarged,
    taking_shares,
    value_shares,
)
from lookaround.explorer.recording import Call, is_attention, map_stride
from lookaround.models.heads import Branch
from lookaround.models.resnet import ResNet
from lookaround.nn import AttentionStem, ConvStem, LocalAttention2d

if TYPE_CHECKING:
    from lookaround.models.retinanet import RetinaNet

IMAGE = "image"
Pulls = tuple[Callable[[Flow], Flow], ...]


@dataclass(frozen=True)
class Link:
    """A part of one map that comes from another.

    Attributes:
        source: name of the earlier map.
        target: name of the later map.
        stride: pixels of the image for each pixel of the later map.
        share: how much of the later map it is.
        pulls: what carries a flow back, one after the other.
    """

    source: str
    target: str
    stride: int
    share: float = 1.0
    pulls: Pulls = ()


@dataclass
class Passed:
    """The calls of layers that look at neighbours, by name and number, as what carries a flow back."""

    pulls: dict[tuple[str, int], Pulls] = field(default_factory=dict)
    sizes: dict[tuple[str, int], Pair] = field(default_factory=dict)
    image_size: Pair = (0, 0)
    mask: Tensor | None = None  # of the images: batch height width, True for padding

    def see(self, call: Call) -> None:
        """Take note of a call."""
        key = call.name, call.number
        self.sizes[key], self.pulls[key] = call.size, _pulls(call)
        self.image_size = call.image_size
        if call.size == call.image_size and call.key_padding_mask is not None:
            self.mask = call.key_padding_mask.cpu()


def spatial_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return by name the layers of a network whose output at a pixel depends on other pixels."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        spatial = isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1)
        if is_attention(module) or spatial or isinstance(module, nn.MaxPool2d):
            found[name] = module
    inside = [f"{name}.value_conv" for name, module in found.items() if isinstance(module, AttentionStem)]
    return {name: module for name, module in found.items() if name not in inside}


def _pulls(call: Call) -> Pulls:
    layer = call.layer
    if isinstance(layer, nn.Conv2d):
        return (convolution_shares(call).pull,)
    if isinstance(layer, nn.MaxPool2d):
        return (pooling_shares(call).pull,)
    pulls: Pulls = (attention_shares(call).pull,)
    if isinstance(layer, AttentionStem):
        values = value_shares(call)
        return pulls if values is None else (*pulls, values.pull)
    assert isinstance(layer, LocalAttention2d)
    if layer.stride == (1, 1):
        return pulls
    return (averaging_shares(call.size, layer.stride, call.key_padding_mask).pull, *pulls)


def link_backbone(body: ResNet, passed: Passed, residual: float, prefix: str = "") -> list[Link]:
    """Link the maps of a ResNet: image, stem, layer1.0, … layer4.2.

    Args:
        body: the network.
        passed: the calls of its layers.
        residual: the share of a block's output that comes by its shortcut.
        prefix: the network's name in the model that holds it, with a point behind it.
    """
    size = passed.sizes[f"{prefix}layer1.0.spatial", 0]
    stride = max(map(map_stride, passed.image_size, size))
    links = [Link(IMAGE, "stem", stride, 1.0, _stem_pulls(body.stem, passed, f"{prefix}stem"))]
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        for name, block in getattr(body, stage).named_children():
            source, target = links[-1].target, f"{stage}.{name}"
            key = f"{prefix}{target}.spatial", 0
            step = block.spatial.stride
            taken = () if step == (1, 1) else (taking_shares(passed.sizes[key], step).pull,)
            stride *= step[0]
            links.append(Link(source, target, stride, 1 - residual, passed.pulls[key]))
            links.append(Link(source, target, stride, residual, taken))
    return links


def link_detector(model: "RetinaNet", passed: Passed, residual: float) -> list[Link]:
    """Link the maps of a detector: the backbone's, p3 … of the pyramid, classes.p3 … and boxes.p3 … .

    Args:
        model: the detector.
        passed: the calls of its layers.
        residual: the share of a block's output that comes by its shortcut.
    """
    body, pyramid = model.backbone.body, model.backbone.pyramid
    levels, name = model.config.levels, "backbone.pyramid"
    links = link_backbone(body, passed, residual, "backbone.body.")
    above: str | None = None
    for index in reversed(range(len(pyramid.stages))):
        level, stage = levels[index], last_block(body, pyramid.stages[index])
        inner = f"inner{level}"
        links.append(Link(stage, inner, 2**level, 1.0 if above is None else 0.5))
        if above is not None:
            links.append(Link(above, inner, 2**level, 0.5, (pull_enlarged,)))
        around = residual if pyramid.residual else 0.0
        links += _around(inner, f"p{level}", 2**level, around, passed.pulls[f"{name}.spatial.{index}", 0])
        above = inner
    for index in range(len(pyramid.further)):
        level = levels[len(pyramid.stages) + index]
        pulls = passed.pulls[f"{name}.further.{index}", 0]
        links.append(Link(f"p{level - 1}", f"p{level}", 2**level, 1.0, pulls))
    for number, level in enumerate(levels):
        for branch in ("classes", "boxes"):
            links += _link_branch(getattr(model.head, branch), (branch, level, number), passed, residual)
    return links


def last_block(body: ResNet, stage: str) -> str:
    """Name the map that a stage puts out."""
    return f"{stage}.{len(getattr(body, stage)) - 1}"


def _around(source: str, target: str, stride: int, residual: float, pulls: Pulls) -> list[Link]:
    """Link a layer, with a shortcut around it if its share is above 0."""
    links = [Link(source, target, stride, 1 - residual, pulls)]
    return links if residual == 0 else [*links, Link(source, target, stride, residual)]


def _link_branch(branch: Branch, place: tuple[str, int, int], passed: Passed, residual: float) -> list[Link]:
    """Link a branch of the head at one level; its place is name, level, and the number of the level."""
    name, level, number = place
    source, stride = f"p{level}", 2**level
    layers = [f"layers.{index}" for index in range(len(branch.layers))]
    if branch.last is not None:
        layers.append("last")
    links: list[Link] = []
    for layer in layers:
        target = f"{name}.p{level}.{layer}"
        pulls = passed.pulls[f"head.{name}.{layer}", number]
        links += _around(source, target, stride, residual if branch.residual else 0.0, pulls)
        source = target
    predicted = passed.pulls.get((f"head.{name}.predict", number), ())
    return [*links, Link(source, f"{name}.p{level}", stride, 1.0, predicted)]


def _stem_pulls(stem: nn.Module, passed: Passed, name: str) -> Pulls:
    pooled = passed.pulls.get((f"{name}.pool", 0), ())
    return (*pooled, *passed.pulls[f"{name}.conv" if isinstance(stem, ConvStem) else name, 0])
