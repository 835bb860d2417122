"""Local attention where the spatial convolutions of any network stood."""

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy

from lookaround.errors import ArgumentError, message
from lookaround.nn.conversion_report import ConversionReport, Left, Replaced
from lookaround.nn.convolutions import Convolution, find_convolutions, reasons_to_stay, shared_tensors
from lookaround.nn.flops import count_flops
from lookaround.nn.local_attention import LocalAttention2d
from lookaround.nn.selection import Predicate, Where, selects
from lookaround.ops.call import check_pair

# Hooks that see inputs, outputs and their gradients, whose shapes stay as they were.
_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_is_full_backward_hook",
)


class AttentionOptions(TypedDict, total=False):
    """The options of `LocalAttention2d` that a convolution does not determine."""

    position: str
    content: bool
    border: str
    shared_tables: bool
    scale: float
    backend: str
    projection_kind: str


def replace_convolutions(
    model: nn.Module,
    where: Where = None,
    *,
    kernel_size: int | tuple[int, int] = 7,
    num_heads: int = 8,
    kinds: str | Sequence[str] = ("3x3",),
    image_size: int | tuple[int, int] | None = None,
    **options: Unpack[AttentionOptions],
) -> ConversionReport:
    """Put `LocalAttention2d` in the place of a network's spatial convolutions, in place.

    Every map keeps its size. A stride becomes attention at full resolution and an average over the stride, as
    in the paper; a dilation becomes that of the window. The attention has the device, dtype, mode (train or
    eval) and hooks of the convolution, and its bias, which is added to the values. Its weights are new,
    random and trainable: convert before the optimizer is made, and train.

    Args:
        model: any network; of torchvision, timm, or yours.
        where: which modules: stages, as in `(3, 4)`; patterns of names, as in `"layer4"` or `"*.conv2"`,
            which also mean what is inside of what they match; or a function of name and module. None means
            all whose input channels the heads divide, which leaves out those that see raw pixels.
        kernel_size: the window of the attention, whatever the size of the convolution was.
        num_heads: heads of every layer. A convolution whose output channels do not fit them stays.
        kinds: patterns of the kinds that are replaced: `"3x3"`, `"grouped 3x3"`, `"depthwise 7x7"`, and as in
            `"depthwise *"`. Of grouped convolutions the attention mixes all channels.
        image_size: count the FLOPs of one such image, before and after.
        options: of `LocalAttention2d`: position, content, border, shared_tables, scale, backend,
            projection_kind.

    Returns:
        What was replaced; what was left, with every reason; parameters and FLOPs before and after.

    Raises:
        ArgumentError: an option has a value that no convolution could be replaced with, a stage is not
            there, or the model is itself a convolution or wrapped for several processes.
        UnknownNameError: a pattern matches nothing.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, stride=2, padding=1))
        >>> print(replace_convolutions(model, num_heads=4))
        replaced 1 of 2 convolutions
          1  3x3, 16 to 32 channels, stride 2  -> 7x7 attention, 4 heads
        left 1
          0
            its 3 input channels are no multiple of num_heads (4), as raw pixels are; `where` can ask for it
        parameters  5,088 -> 2,136
    """
    _check_model(model)
    attention = {"kernel_size": kernel_size, "num_heads": num_heads, **options}
    _check_options(attention)
    convolutions = find_convolutions(model)
    names = [name for convolution in convolutions for name in convolution.names]
    wish = _Wish(selects(where, model, names), where is None, _check_kinds(kinds), attention)
    shared = shared_tensors(model)
    # All is decided before anything is changed: `where` may be a function that raises.
    judged = [(each, (*_unasked(each, wish), *reasons_to_stay(each.module, shared))) for each in convolutions]
    parameters, flops = _count_parameters(model), _count(model, image_size)
    replaced = [_replace(model, each, attention) for each, reasons in judged if not reasons]
    return ConversionReport(
        replaced=tuple(replaced),
        left=tuple(Left(each.names, each.describe(), reasons) for each, reasons in judged if reasons),
        options=attention,
        parameters_before=parameters,
        parameters_after=_count_parameters(model),
        image_size=None if image_size is None else check_pair("count_flops", "image_size", image_size),
        flops_before=flops,
        flops_after=_count(model, image_size),
    )


@dataclass(frozen=True)
class _Wish:
    """Which convolutions somebody wants to be replaced, and by what."""

    selects: Predicate
    all: bool
    kinds: Sequence[str]
    attention: dict[str, Any]


def _check_model(model: nn.Module) -> None:
    where, must = "replace_convolutions", "model must be a module that holds convolutions"
    if isinstance(model, _ConvNd):
        hint = "a single layer cannot be exchanged in place; make a LocalAttention2d instead of it."
        raise ArgumentError(message(where, must, f"the convolution {model}", hint=hint))
    if isinstance(model, nn.parallel.DistributedDataParallel):
        hint = "convert the model before it is wrapped, on every process from the same seed."
        raise ArgumentError(message(where, must, "one wrapped in DistributedDataParallel", hint=hint))


def _check_options(attention: dict[str, Any]) -> None:
    """Raise ArgumentError for options that no convolution could be replaced with."""
    heads = attention["num_heads"]
    channels = 2 * heads if isinstance(heads, int) and heads > 0 else 2
    LocalAttention2d(channels, channels, device="meta", **attention)


def _check_kinds(kinds: str | Sequence[str]) -> list[str]:
    patterns = [kinds] if isinstance(kinds, str) else list(kinds)
    if not patterns or any(not isinstance(pattern, str) for pattern in patterns):
        must = "kinds must be patterns of kinds of convolutions"
        hint = "try '3x3', 'grouped 3x3' or 'depthwise *'."
        raise ArgumentError(message("replace_convolutions", must, repr(kinds), hint=hint))
    return patterns


def _unasked(convolution: Convolution, wish: _Wish) -> Iterator[str]:
    """List why a convolution is none of those that are wanted, or none that the options fit."""
    kind, module = convolution.kind, convolution.module
    if not convolution.is_spatial:
        yield f"a {kind} convolution sees no neighbours"
    elif not any(fnmatch.fnmatchcase(kind, pattern) for pattern in wish.kinds):
        yield f"its kind, {kind!r}, is none of `kinds` ({', '.join(map(repr, wish.kinds))})"
    unselected = [name for name in convolution.names if not wish.selects(name, module)]
    if len(unselected) == len(convolution.names):
        yield "`where` leaves it out"
    elif unselected:
        yield f"it also stands at {', '.join(unselected)}, which `where` leaves out"
    heads = wish.attention["num_heads"]
    if wish.all and convolution.is_spatial and module.in_channels % heads:
        channels = f"its {module.in_channels} input channels"
        yield f"{channels} are no multiple of num_heads ({heads}), as raw pixels are; `where` can ask for it"
    if convolution.is_spatial and isinstance(module, nn.Conv2d):
        try:
            _make(module, wish.attention, "meta")
        except ArgumentError as error:
            yield str(error).partition("\n")[0].removeprefix("LocalAttention2d: ").rstrip(".")


def _make(module: nn.Conv2d, attention: dict[str, Any], device: torch.device | str) -> LocalAttention2d:
    (down, right), (rows, columns) = module.stride, module.dilation
    return LocalAttention2d(
        module.in_channels,
        module.out_channels,
        stride=(down, right),
        dilation=(rows, columns),
        bias=module.bias is not None,
        device=device,
        dtype=module.weight.dtype if module.weight.is_floating_point() else None,
        **attention,
    )


def _replace(model: nn.Module, convolution: Convolution, attention: dict[str, Any]) -> Replaced:
    module = convolution.module
    assert isinstance(module, nn.Conv2d)
    layer = _make(module, attention, module.weight.device)
    bias = layer.projection.bias
    if module.bias is not None and bias is not None:
        # The weights of a window sum to 1: a constant in all values is the same constant in the output.
        with torch.no_grad():
            bias[-module.out_channels :] = module.bias
    layer.train(module.training)
    for name in _HOOKS:  # the same dictionaries, so that their handles still remove them
        setattr(layer, name, getattr(module, name))
    for name in convolution.names:
        parent, _, child = name.rpartition(".")
        model.get_submodule(parent)._modules[child] = layer
    counts = _count_parameters(module), _count_parameters(layer)
    return Replaced(convolution.names, convolution.describe(), _describe(layer), *counts)


def _describe(layer: LocalAttention2d) -> str:
    size = "x".join(str(side) for side in layer.kernel_size)
    return f"{size} attention, {layer.num_heads} heads"


def _count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if not is_lazy(parameter))


def _count(model: nn.Module, image_size: int | tuple[int, int] | None) -> int | None:
    return None if image_size is None else count_flops(model, image_size)
