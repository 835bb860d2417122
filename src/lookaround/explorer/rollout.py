"""Attention rollout: from where in the image a pixel of a deep map takes what it holds."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from lookaround.errors import ArgumentError, UnknownNameError, closest, message
from lookaround.explorer.attention_maps import check_pixels
from lookaround.explorer.flow import Flow
from lookaround.explorer.pathways import (
    IMAGE,
    Link,
    Passed,
    last_block,
    link_backbone,
    link_detector,
    spatial_layers,
)
from lookaround.explorer.recording import Images, record_calls, size_of, uncompiled
from lookaround.models.padding import shrink_mask
from lookaround.models.resnet import Bottleneck, ResNet
from lookaround.models.retinanet_config import RetinaNetConfig

if TYPE_CHECKING:
    from lookaround.models.retinanet import RetinaNet

WHERE = "attention_rollout"
BRANCHES = ("classes", "boxes")
Queries = Sequence[tuple[int, int] | None]


@dataclass(frozen=True)
class Rollout:
    """From where in the image the pixels of a map take what they hold.

    Attributes:
        layer: the map that was begun at.
        size: height and width of that map.
        shares: for every image and query the share of each pixel of the image, float32. They sum to 1 unless
            a layer spends weight on what is no part of the image: beyond its border under border "zeros", or
            in the padding within a block of an attention stem.
    """

    layer: str
    size: tuple[int, int]
    shares: Float[np.ndarray, "batch queries height width"]


def attention_rollout(
    model: nn.Module,
    images: Images,
    pixels: Queries = (None,),
    *,
    layers: Sequence[str] | None = None,
    residual: float = 0.5,
) -> list[Rollout]:
    """Follow what pixels of deep maps hold back to the image, through all layers between them.

    Every layer is read as a weighted mean of pixels, and the weights are multiplied. Attention counts as the
    mean of its heads' weights; a shortcut and the layers beside it as `residual` and `1 - residual`; a stride
    as the mean that it takes; max-pooling as the share of channels whose maximum is at each place; a
    convolution as the norms of its weights at each place of the kernel; two maps that a pyramid adds as half
    of each. What works on single pixels changes nothing.

    Args:
        model: a ResNet or a detector of `lookaround.create_model`, convolving or attending, not fused.
        images: as the model takes them: a batch, or for a detector also a list of images of any sizes.
        pixels: the queries, each row and column of a pixel in the images, in a map the pixel that stands
            above it; or None for the mean over a map's pixels, from which a classifier reads the classes.
        layers: the maps to begin at: "stem", "layer1" to "layer4" or one of their blocks as "layer3.0", and
            of a detector also a level of its pyramid as "p3", or of its heads as "classes.p3" or "boxes.p3".
            None is for the last map alone: "layer4", or "classes." and the finest level.
        residual: share of a shortcut, from 0 to 1.

    Returns:
        One for each of `layers`.

    Raises:
        ArgumentError: the model is another one, a pixel lies outside of the images, residual is out of range,
            or there are no images or no queries.
        UnknownNameError: there is no such map.

    Cost:
        `k²` floats for each pixel of each layer, and as many multiply-adds for each query; no matrix of
        pixels by pixels.

    Source:
        Abnar and Zuidema 2020, Quantifying Attention Flow in Transformers, section 3 (attention rollout).

    Departures from the paper:
        Windows, strides, pooling, pyramids and convolutions, which its transformers do not have. The
        residual share, ½ there, can be chosen.

    Example:
        >>> from lookaround import create_model
        >>> model = create_model("sasa_resnet14_small", width=0.25, in_channels=1)
        >>> (rollout,) = attention_rollout(model, torch.randn(1, 1, 8, 8), [(2, 5), None])
        >>> rollout.layer, rollout.shares.shape
        ('layer4.0', (1, 2, 8, 8))
    """
    network = _check_model(uncompiled(model))
    if not 0 <= residual <= 1:
        raise ArgumentError(message(WHERE, "residual must be from 0 to 1", residual))
    check_pixels(WHERE, pixels, images)
    names = _find_maps(network, layers)
    passed = Passed()
    record_calls(WHERE, network, images, spatial_layers(network), passed.see)
    links = _link(network, passed, residual)
    height, width = size_of(images)
    found = []
    for name in names:
        stride = next(link.stride for link in links if link.target == name)
        flow = _begin(passed, stride, len(images), pixels)
        with torch.inference_mode():
            shares = _walk(links, name, flow)[..., :height, :width].numpy()
        found.append(Rollout(name, (flow.shape[2], flow.shape[3]), shares))
    return found


def _check_model(model: nn.Module) -> "ResNet | RetinaNet":
    """Refuse what has not the maps of our networks; a fused one does in one step what is several here."""
    config = getattr(model, "config", None)
    blocks = [part for name, part in model.named_modules() if re.search(r"layer[1-4]\.\d+$", name)]
    ours = isinstance(model, ResNet) or isinstance(config, RetinaNetConfig)
    if not ours or not all(isinstance(block, Bottleneck) for block in blocks):
        must = "model must be a network of create_model, not fused and not wrapped"
        hint = "attention_maps takes any model with attention layers."
        raise ArgumentError(message(WHERE, must, type(model).__name__, hint=hint))
    return cast("ResNet | RetinaNet", model)


def _find_maps(model: "ResNet | RetinaNet", layers: Sequence[str] | None) -> list[str]:
    """Give the names of the maps that are meant; a stage stands for its last block."""
    body = _body(model)
    stages = ["layer1", "layer2", "layer3", "layer4"]
    blocks = [f"{stage}.{index}" for stage in stages for index in range(len(getattr(body, stage)))]
    levels = _levels(model)
    known = ["stem", *blocks, *levels, *(f"{branch}.{level}" for branch in BRANCHES for level in levels)]
    if layers is None:
        return [f"{BRANCHES[0]}.{levels[0]}" if levels else blocks[-1]]
    names = [last_block(body, layer) if layer in stages else layer for layer in layers]
    for name in names:
        if name not in known:
            hint = closest(name, [*stages, *known])
            raise UnknownNameError(message(WHERE, "layers must be maps of the model", repr(name), hint=hint))
    return names


def _body(model: "ResNet | RetinaNet") -> ResNet:
    body = model if isinstance(model, ResNet) else model.backbone.body
    assert isinstance(body, ResNet)
    return body


def _levels(model: "ResNet | RetinaNet") -> list[str]:
    config = model.config
    return [f"p{level}" for level in config.levels] if isinstance(config, RetinaNetConfig) else []


def _link(model: "ResNet | RetinaNet", passed: Passed, residual: float) -> list[Link]:
    if isinstance(model, ResNet):
        return link_backbone(model, passed, residual)
    return link_detector(model, passed, residual)


def _begin(passed: Passed, stride: int, batch: int, pixels: Queries) -> Flow:
    """Put 1 at each query, or a mean over all pixels that are no padding."""
    height, width = (-(-side // stride) for side in passed.image_size)
    mask = shrink_mask(passed.mask, stride)
    there = torch.ones(batch, height, width) if mask is None else (~mask).float()
    flow = torch.zeros(batch, len(pixels), height, width)
    for query, pixel in enumerate(pixels):
        if pixel is None:
            flow[:, query] = there / there.sum((-1, -2), keepdim=True)
        else:
            flow[:, query, pixel[0] // stride, pixel[1] // stride] = 1.0
    return flow


def _walk(links: list[Link], begin: str, flow: Flow) -> Flow:
    """Carry a flow back along the links, the latest map first."""
    flows = {begin: flow}
    for link in reversed(links):
        if link.target in flows:
            carried = flows[link.target]
            for pull in link.pulls:
                carried = pull(carried)
            carried = link.share * carried
            flows[link.source] = flows[link.source] + carried if link.source in flows else carried
    return flows[IMAGE]
