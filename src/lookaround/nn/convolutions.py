"""The convolutions of any network: where they are, what they are, and why one must stay.

Attention takes the place of a convolution if it gives maps of the same size and nobody needs more of the
convolution than its output. Each question that has to do with this is one function here that gives reasons.
"""

from collections import defaultdict
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import is_parametrized

from lookaround.ops.call import FLOATS

# timm's convolutions that differ in their weights' scale, or in padding by the size of the image.
_STANDARDIZED = ("StdConv2d", "StdConv2dSame", "ScaledStdConv2d", "ScaledStdConv2dSame")
_PADDED_BY_SIZE = ("Conv2dSame", "Conv2dSameExport", "StdConv2dSame", "ScaledStdConv2dSame")
_OWN_TENSORS = {"weight", "bias", "gain"}  # gain: of the ScaledStdConv2d
_STATE_HOOKS = (
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


@dataclass(frozen=True)
class Convolution:
    """One convolution of a network.

    Attributes:
        names: the places where it stands; more than one if it is shared.
        module: the layer.
    """

    names: tuple[str, ...]
    module: _ConvNd

    @property
    def name(self) -> str:
        """The first of its places."""
        return self.names[0]

    @property
    def kind(self) -> str:
        """Whether it is grouped or depthwise, and its size: `3x3`, `grouped 3x3`, `depthwise 7x7`."""
        module = self.module
        size = "x".join(str(side) for side in module.kernel_size)
        if module.groups == 1:
            return size
        return f"{'depthwise' if module.groups == module.in_channels else 'grouped'} {size}"

    @property
    def is_spatial(self) -> bool:
        """Whether an output pixel sees more than one input pixel."""
        return any(side > 1 for side in self.module.kernel_size)

    def describe(self) -> str:
        """Say what it is in a few words, as in `3x3, 64 to 128 channels, stride 2`."""
        module = self.module
        said = f"{self.kind}, {module.in_channels} to {module.out_channels} channels"
        for name in ("stride", "dilation"):
            steps = getattr(module, name)
            if any(step != 1 for step in steps):
                said += f", {name} {steps[0] if len(set(steps)) == 1 else steps}"
        return said


def find_convolutions(model: nn.Module) -> list[Convolution]:
    """List the convolutions of a network, each once, in the order of its modules."""
    names: dict[_ConvNd, list[str]] = defaultdict(list)
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, _ConvNd):
            names[module].append(name)
    return [Convolution(tuple(places), module) for module, places in names.items()]


def shared_tensors(model: nn.Module) -> set[int]:
    """Return the identities of the parameters that more than one module holds."""
    holders: dict[int, set[int]] = defaultdict(set)
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            holders[id(parameter)].add(id(module))
    return {tensor for tensor, modules in holders.items() if len(modules) > 1}


def reasons_to_stay(module: _ConvNd, shared: set[int]) -> list[str]:
    """List every reason why a convolution cannot be replaced, whatever by.

    Args:
        module: the convolution.
        shared: of the network, from `shared_tensors`.
    """
    if not isinstance(module, nn.Conv2d):
        return [f"a {type(module).__name__} is no convolution of images to images of the same kind"]
    return [*_of_its_class(module), *_of_its_tensors(module, shared), *_of_hooks(module), *_of_size(module)]


def _of_its_class(module: nn.Conv2d) -> list[str]:
    reasons = []
    if type(module) is not nn.Conv2d and not is_parametrized(module) and not _is_timm(module):
        reasons.append(f"a {type(module).__name__} may do more than nn.Conv2d, of which it is a subclass")
    if "forward" in vars(module):
        reasons.append("its forward was exchanged on this one module")
    return reasons


def _is_timm(module: nn.Conv2d, names: tuple[str, ...] = _STANDARDIZED + _PADDED_BY_SIZE) -> bool:
    """Tell whether a module is one of timm's, which is not imported for this."""
    return type(module).__module__.startswith("timm.") and type(module).__name__ in names


def _of_its_tensors(module: nn.Conv2d, shared: set[int]) -> list[str]:
    others = {*module._parameters, *module._buffers, *module._modules} - _OWN_TENSORS
    if others or is_parametrized(module):
        return [f"it is reparametrized: it holds {', '.join(sorted(others))}"]
    reasons = []
    if type(module.weight) is not nn.Parameter:
        reasons.append(f"its weight is a {type(module.weight).__name__}, not a plain parameter")
    elif module.weight.dtype not in FLOATS:
        reasons.append(f"its weight has dtype {module.weight.dtype}, in which attention does not compute")
    if any(id(parameter) in shared for parameter in module.parameters(recurse=False)):
        reasons.append("it shares its weight or bias with another module")
    return reasons


def _of_hooks(module: nn.Conv2d) -> list[str]:
    """Find hooks that know the convolution's own tensors; those of its inputs and outputs move along."""
    if any(getattr(module, name) for name in _STATE_HOOKS):
        return ["hooks on its state dict know its own tensors"]
    return []


def _of_size(module: nn.Conv2d) -> list[str]:
    reasons = []
    if module.padding_mode != "zeros":
        reasons.append(f"it pads by {module.padding_mode!r}, which attention has no counterpart of")
    if not _keeps_size(module):
        reach = [step * (side - 1) for step, side in zip(module.dilation, module.kernel_size, strict=True)]
        reasons.append(
            f"its padding {module.padding} is not half of what its window spans ({reach[0]}, {reach[1]}), "
            "so that its map is not of ceil(size / stride) a side"
        )
    return reasons


def _keeps_size(module: nn.Conv2d) -> bool:
    """Tell whether the map has ceil(size / stride) a side, for every size."""
    if module.padding == "same":
        return True
    if _is_timm(module, _PADDED_BY_SIZE) and getattr(module, "same_pad", True):
        return True
    padding = (0, 0) if isinstance(module.padding, str) else module.padding  # the other word is "valid"
    sides = zip(module.kernel_size, module.dilation, padding, strict=True)
    return all(2 * added == step * (side - 1) for side, step, added in sides)
