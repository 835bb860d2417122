"""Networks by name, whoever made them: torchvision's, timm's and ours.

A name may say whose it is (`timm:resnet50`); otherwise the first that knows it is asked: torchvision, timm,
then lookaround itself. A package that is not installed is passed over.
"""

import difflib
import importlib.util
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from lookaround.errors import ArgumentError, DataError, LookaroundError, UnknownNameError, closest, message

_NAME = re.compile(r"[\w.\-]+")  # no colon, no slash: timm reads those as places to download from


@dataclass(frozen=True)
class NamedNetwork:
    """A network of a package.

    Attributes:
        source: "torchvision", "timm" or "lookaround".
        name: what it is called there.
        others: other packages that have a network of this name.
    """

    source: str
    name: str
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the name that is found again, as in `timm:resnet50`."""
        return f"{self.source}:{self.name}"


def find_network(name: str) -> NamedNetwork:
    """Find out whose network a name means, without making it.

    Args:
        name: `torchvision:NAME`, `timm:NAME`, `lookaround:NAME`, or the name alone.

    Raises:
        UnknownNameError: nobody has such a network.

    Example:
        >>> str(find_network("resnet50"))
        'torchvision:resnet50'
    """
    prefix, colon, bare = name.rpartition(":")
    if colon and prefix not in _SOURCES:
        hint = closest(prefix, list(_SOURCES))
        raise UnknownNameError(message("find_network", "the source must be known", repr(prefix), hint=hint))
    asked = [prefix] if colon else [source for source in _SOURCES if importlib.util.find_spec(source)]
    known = {source: _SOURCES[source].names() for source in asked}
    # timm names weights of one network by tags behind a point.
    plain = {source: bare.partition(".")[0] if source == "timm" else bare for source in asked}
    found = [source for source in asked if _NAME.fullmatch(bare) and plain[source] in known[source]]
    if not found:
        near = {f"{s}:{n}" for s, names in known.items() for n in difflib.get_close_matches(bare, names, n=1)}
        meant = f"did you mean {' or '.join(sorted(near))}? " if near else ""
        hint = (
            f"{meant}`lookaround models`, torchvision.models.list_models() and timm.list_models() list them."
        )
        must = f"the network must be one of {', '.join(asked)}"
        raise UnknownNameError(message("find_network", must, repr(name), hint=hint))
    return NamedNetwork(found[0], bare, tuple(found[1:]))


def make_network(
    network: NamedNetwork, num_classes: int | None = None, *, pretrained: bool = False
) -> nn.Module:
    """Make a network that `find_network` found.

    Args:
        network: which.
        num_classes: size of its last layer; None for what it has by default.
        pretrained: whether its package's own weights are loaded, which may download them.

    Raises:
        ArgumentError: the network does not come with such options.
        DataError: the weights cannot be had.
    """
    try:
        return _SOURCES[network.source].make(network.name, num_classes, pretrained)
    except LookaroundError:
        raise
    except OSError as error:  # of files and of connections
        hint = "make it without pretrained weights, or give a file with weights."
        must = "pretrained weights must be within reach"
        raise DataError(message("make_network", must, f"{network} ({error})", hint=hint)) from error
    except (TypeError, ValueError, RuntimeError) as error:
        options = f"num_classes={num_classes}, pretrained={pretrained}"
        lines = [str(error).strip().partition("\n")[0]]
        must = "the network must come with these options"
        raise ArgumentError(message("make_network", must, f"{network}, {options}", lines=lines)) from error


@dataclass(frozen=True)
class _Source:
    """A package: the names that it knows, and how it makes one."""

    names: Callable[[], list[str]]
    make: Callable[[str, int | None, bool], nn.Module]


def _torchvision_names() -> list[str]:
    import torchvision

    names: list[str] = torchvision.models.list_models()
    return names


def _make_of_torchvision(name: str, num_classes: int | None, pretrained: bool) -> nn.Module:
    import torchvision

    options: dict[str, Any] = {"weights": "DEFAULT" if pretrained else None}
    if "weights_backbone" in inspect.signature(torchvision.models.get_model_builder(name)).parameters:
        options["weights_backbone"] = None  # its default downloads them
    model: nn.Module = torchvision.models.get_model(name, **options, **_classes(num_classes))
    return model


def _timm_names() -> list[str]:
    import timm

    names: list[str] = timm.list_models()
    return names


def _make_of_timm(name: str, num_classes: int | None, pretrained: bool) -> nn.Module:
    import timm

    model: nn.Module = timm.create_model(name, pretrained=pretrained, **_classes(num_classes))
    return model


def _own_names() -> list[str]:
    from lookaround.models import list_models

    return list_models()


def _make_of_ours(name: str, num_classes: int | None, pretrained: bool) -> nn.Module:
    from lookaround.models import create_model

    options: dict[str, Any] = {"pretrained": True} if pretrained else {}
    return create_model(name, **options, **_classes(num_classes))


def _classes(num_classes: int | None) -> dict[str, Any]:
    return {} if num_classes is None else {"num_classes": num_classes}


_SOURCES = {
    "torchvision": _Source(_torchvision_names, _make_of_torchvision),
    "timm": _Source(_timm_names, _make_of_timm),
    "lookaround": _Source(_own_names, _make_of_ours),
}
