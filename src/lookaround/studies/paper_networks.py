"""A row's network at a scale, and in the one form by which equal networks are known as equal."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

from lookaround.models.config import ATTENTION_BLOCKS, ResNetConfig
from lookaround.models.variants import DEPTHS, DETECTION, VARIANTS, task_of
from lookaround.studies.paper_plan import PlanRow
from lookaround.studies.paper_scale import PRINTED, Scale

# What has no meaning for a network that convolves throughout.
OF_ATTENTION = (
    "kernel_size",
    "num_heads",
    "position",
    "content",
    "border",
    "shared_tables",
    "scale",
    "projection",
    "attention_blocks",
)


@dataclass(frozen=True)
class Network:
    """A named model and what differs from it, in plain types.

    Attributes:
        model: one of `lookaround.list_models()`.
        overrides: as `lookaround.create_model(model, **overrides)` takes them; none that changes nothing.
    """

    model: str
    overrides: dict[str, Any]


def network_at(row: PlanRow, scale: Scale) -> Network:
    """Return the network of a row at a scale."""
    if task_of(row.model) == DETECTION:
        layers, values = scale.detector_layers, dict(scale.detector)
    else:
        layers, values = _layers(row.model), _classifier(row, scale)
    name = row.model.replace(f"resnet{_layers(row.model)}", f"resnet{layers}")
    return simplest(f"{name}_small" if scale.small else name, {**row.overrides, **values})


def _layers(model: str) -> int:
    found = re.search(r"resnet(\d+)", model)
    assert found is not None
    return int(found[1])


def _classifier(row: PlanRow, scale: Scale) -> dict[str, Any]:
    depths = scale.depths[_layers(row.model)]
    values: dict[str, Any] = {"width": scale.width * row.overrides.get("width", 1.0)}
    if depths != PRINTED[_layers(row.model)]:
        values["depths"] = depths
    if scale.num_heads is not None:
        values["num_heads"] = max(scale.num_heads, row.least_heads)
    return values | {"batch_norm_momentum": scale.batch_norm_momentum}


def simplest(model: str, overrides: dict[str, Any]) -> Network:
    """Return the same network under the plainest name, without overrides that change nothing.

    Two rows that describe the same network, as a network with attention in no stage and the baseline, give
    the same. Overrides that no model knows are kept, so that whoever builds the network can complain.

    Raises:
        ArgumentError: an override has a value that cannot be used.

    Example:
        >>> simplest("sasa_resnet50_convstem", {"attention_stages": (), "kernel_size": 3})
        Network(model='resnet50', overrides={})
        >>> simplest("sasa_resnet50_convstem", {"kernel_size": 7, "border": "zeros"})
        Network(model='sasa_resnet50_convstem', overrides={'border': 'zeros'})
        >>> simplest("sasa_resnet50", {"depths": (1, 2, 2, 1), "attention_blocks": "alternate"}).overrides
        {'depths': [1, 2, 2, 1], 'attention_stages': [2, 3], 'attention_blocks': 'last'}
    """
    variant = VARIANTS[model]
    known = {f.name for f in dataclasses.fields(variant)}
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in overrides.items()}
    config = dataclasses.replace(variant, **{k: v for k, v in values.items() if k in known})
    if isinstance(config, ResNetConfig):
        config = _plainest_attention(config)
    unknown = {name: value for name, value in overrides.items() if name not in known}
    base = variant if task_of(model) == DETECTION else VARIANTS[_plainest(model, config)]
    differing = {
        f.name: getattr(config, f.name)
        for f in dataclasses.fields(variant)
        if f.name != "name" and getattr(config, f.name) != getattr(base, f.name)
    }
    without = _meaningless(config) if task_of(model) != DETECTION else ()
    kept = {name: value for name, value in (differing | unknown).items() if name not in without}
    return Network(base.name, {k: list(v) if isinstance(v, tuple) else v for k, v in kept.items()})


def _plainest(model: str, config: ResNetConfig) -> str:
    end = "_small" if config.small else ""
    same = [
        layers
        for layers, depths in DEPTHS.items()
        if depths == config.depths and f"resnet{layers}{end}" in VARIANTS
    ]
    layers = same[0] if same else _layers(model)
    if config.stem == "attention":
        return f"sasa_resnet{layers}{end}"
    return f"sasa_resnet{layers}_convstem{end}" if config.attention_stages else f"resnet{layers}{end}"


def _plainest_attention(config: ResNetConfig) -> ResNetConfig:
    """Return the same attending blocks by as few stages as have one, and the first choice that gives them."""
    wanted = _attending(config)
    stages = tuple(dict.fromkeys(stage for stage, _ in wanted))
    choices = (
        dataclasses.replace(config, attention_stages=stages, attention_blocks=blocks)
        for blocks in ATTENTION_BLOCKS
    )
    return next(choice for choice in choices if _attending(choice) == wanted)


def _attending(config: ResNetConfig) -> list[tuple[int, int]]:
    blocks = [(stage, block) for stage, depth in enumerate(config.depths, 1) for block in range(depth)]
    return [place for place in blocks if config.attends(*place)]


def _meaningless(config: ResNetConfig) -> tuple[str, ...]:
    names = () if config.stem == "attention" else ("stem_values",)
    return names if config.attention_stages else (*names, *OF_ATTENTION)


def readable(network: Network) -> str:
    """Name a network for people: the model, and what differs from it and from the scale's common settings.

    Example:
        >>> readable(Network("sasa_resnet50_convstem_small", {"width": 0.25, "kernel_size": 3}))
        'sasa_resnet50_convstem_small-width0.25-kernel_size3'
    """
    plain = {
        k: v for k, v in network.overrides.items() if k not in ("depths", "num_heads", "batch_norm_momentum")
    }
    parts = [f"{name}{_word(value)}" for name, value in plain.items()]
    return "-".join([network.model, *parts])


def _word(value: object) -> str:
    if isinstance(value, list):
        return "".join(map(str, value)) if value else "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
