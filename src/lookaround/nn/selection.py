"""Which modules of a network are meant: by stages, by patterns of names, or by a function."""

import fnmatch
import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from torch import nn

from lookaround.errors import ArgumentError, UnknownNameError, closest, message

Predicate: TypeAlias = Callable[[str, nn.Module], bool]
Where: TypeAlias = int | str | Sequence[int | str] | Predicate | None

# How torchvision and timm name the stages of a network: counted from 1, or from 0.
_STAGE = re.compile(
    r"(?:^|\.)(?:(?:layer|stage|denseblock|trunk_output\.block|s)(?P<from_one>\d+)"
    r"|(?:stages|blocks)[._](?P<from_zero>\d+))(?=\.)"
)


def stage_of(name: str) -> int | None:
    """Tell by its name in which stage of a network a module is, counted from 1; None if in no stage.

    Example:
        >>> [stage_of(name) for name in ("layer3.0.conv2", "stages.2.blocks.0", "trunk.s3.b1", "stem.0")]
        [3, 3, 3, None]
    """
    found = _STAGE.search(name)
    if found is None:
        return None
    return int(found["from_one"]) if found["from_one"] is not None else int(found["from_zero"]) + 1


def selects(where: Where, model: nn.Module, names: Sequence[str]) -> Predicate:
    """Make a function that tells which modules `where` means.

    Args:
        where: None for all. A stage or several, counted from 1. A pattern of names or several, which also
            mean what is inside of the modules that they match. Or a function of name and module.
        model: the network.
        names: of the modules that can be meant; every stage and pattern has to mean one of them.

    Raises:
        ArgumentError: `where` is none of these, or a stage is not there.
        UnknownNameError: a pattern matches nothing.
    """
    if where is None:
        return lambda name, module: True
    if callable(where):
        return where
    items = list(where) if isinstance(where, Sequence) and not isinstance(where, str) else [where]
    if any(not isinstance(item, (int, str)) or isinstance(item, bool) for item in items) or not items:
        must = "where must be stages, patterns of names, or a function of name and module"
        raise ArgumentError(message("replace_convolutions", must, repr(where)))
    stages = [item for item in items if isinstance(item, int)]
    patterns = [item for item in items if isinstance(item, str)]
    _check_stages(stages, names)
    _check_patterns(patterns, model, names)
    return lambda name, module: stage_of(name) in stages or any(_is_meant(name, p) for p in patterns)


def _check_stages(stages: Sequence[int], names: Sequence[str]) -> None:
    there = sorted({stage for name in names if (stage := stage_of(name)) is not None})
    absent = [stage for stage in stages if stage not in there]
    if absent:
        must = "stages must be those of the model"
        known = f"its stages with convolutions are {', '.join(map(str, there))}" if there else "it names none"
        hint = f"{known}; where='PATTERN' names modules of any model."
        got = ", ".join(map(str, absent))
        raise ArgumentError(message("replace_convolutions", must, got, hint=hint))


def _check_patterns(patterns: Sequence[str], model: nn.Module, names: Sequence[str]) -> None:
    for pattern in patterns:
        if not any(_is_meant(name, pattern) for name in names):
            must = "every pattern must match the name of a convolution, or of a module that holds one"
            hint = closest(pattern, [name for name, _ in model.named_children()])
            raise UnknownNameError(message("replace_convolutions", must, repr(pattern), hint=hint))


def _is_meant(name: str, pattern: str) -> bool:
    """Tell whether a pattern matches a name or the name of a module that holds it."""
    parts = name.split(".")
    return any(fnmatch.fnmatchcase(".".join(parts[:end]), pattern) for end in range(1, len(parts) + 1))
