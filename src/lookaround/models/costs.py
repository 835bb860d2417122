"""Parameters and FLOPs of a network, as the paper counts them and as they are executed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lookaround.models.pyramid import ChannelNorm
from lookaround.models.resnet import ResNet
from lookaround.models.variants import Model
from lookaround.nn import AttentionStem, LocalAttention2d
from lookaround.nn.flops import attention_cost, outline
from lookaround.nn.grouped_linear import GroupedLinear
from lookaround.nn.pointwise import PointwiseConv2d
from lookaround.ops.call import check_pair


@dataclass(frozen=True)
class Costs:
    """What a network costs for one image.

    Attributes:
        parameters: trainable parameters.
        paper_flops: two per multiply-add, q·r in full, three per batch norm with its ReLU.
        executed_flops: the same with q·r factorised and the stem's products folded, as they run.
    """

    parameters: int
    paper_flops: int
    executed_flops: int


def model_costs(model: Model, image_size: int | tuple[int, int]) -> Costs:
    """Count a network's parameters and the FLOPs of one image, without computing anything.

    Args:
        model: the network; it is not changed. Of a detector the layers are counted, not what is done with
            their predictions.
        image_size: height and width in pixels, an integer or a pair.

    Raises:
        ArgumentError: image_size is not positive.

    Source:
        The counting rules are those with which every printed figure of Ramachandran et al. 2019 is met;
        the tests hold each of them.

    Example:
        >>> from lookaround import create_model
        >>> model_costs(create_model("resnet50"), 224).parameters
        25557032
    """
    height, width = check_pair("model_costs", "image_size", image_size)
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    dtype = next(model.parameters()).dtype
    tally = _Tally()
    outlined = outline(model)
    for module in outlined.modules():
        count = _COUNTERS.get(type(module))
        if count is not None:
            module.register_forward_hook(tally.hook(count))
    run = outlined if isinstance(outlined, ResNet) else outlined.network
    with torch.no_grad():
        run(torch.empty(1, model.config.in_channels, height, width, device="meta", dtype=dtype))
    return Costs(parameters, tally.paper, tally.executed)


_Counter = Callable[[Any, Tensor, Tensor], tuple[int, int]]


class _Tally:
    """Adds up what the hooks count."""

    def __init__(self) -> None:
        self.paper = 0
        self.executed = 0

    def hook(self, count: _Counter) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            paper, executed = count(module, inputs[0], output)
            self.paper += paper
            self.executed += executed

        return add


def _conv(module: nn.Conv2d, x: Tensor, out: Tensor) -> tuple[int, int]:
    return (2 * out.numel() * module.weight[0].numel(),) * 2


def _linear(module: nn.Linear, x: Tensor, out: Tensor) -> tuple[int, int]:
    return (2 * out.numel() * module.in_features,) * 2


def _grouped(module: GroupedLinear, x: Tensor, out: Tensor) -> tuple[int, int]:
    """Count what the groups need, and the full map as which they run."""
    full = 2 * out.numel() * module.in_features
    return full // module.groups, full


def _norm(module: nn.Module, x: Tensor, out: Tensor) -> tuple[int, int]:
    return (3 * out.numel(),) * 2


def _attention(module: LocalAttention2d, x: Tensor, out: Tensor) -> tuple[int, int]:
    cost = attention_cost(module, x)
    return cost.paper_flops, cost.executed_flops


def _stem(module: AttentionStem, x: Tensor, out: Tensor) -> tuple[int, int]:
    """Count the attention of the stem; its batch norm and a value convolution count themselves."""
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    places, heads = module.block_size**2, module.num_heads
    inputs, outputs = module.in_channels, module.out_channels
    values = 0 if module.values == "convolution" else inputs * outputs
    sums = places * outputs
    mixing = (values + outputs) * (module.mixtures - 1) if module.values == "spatially_aware" else 0
    in_full = 2 * inputs * outputs + places * outputs
    folded = heads * inputs * inputs + heads * places * inputs
    paper, executed = in_full + values + mixing + sums, folded + values + sums
    return 2 * pixels * paper, 2 * pixels * executed


_COUNTERS: dict[type, _Counter] = {
    nn.Conv2d: _conv,
    PointwiseConv2d: _conv,
    nn.Linear: _linear,
    GroupedLinear: _grouped,
    nn.BatchNorm2d: _norm,
    ChannelNorm: _norm,
    LocalAttention2d: _attention,
    AttentionStem: _stem,
}
