"""The named models, one row each, and where each comes from."""

import dataclasses
import fnmatch
from typing import Any

from lookaround.errors import UnknownNameError, closest, message
from lookaround.models.config import ResNetConfig
from lookaround.models.resnet import ResNet

ALL_STAGES = (1, 2, 3, 4)
# Blocks in each stage: Ramachandran et al. 2019, section 4.1; 14 is ours, one block a stage for small images.
DEPTHS = {14: (1, 1, 1, 1), 26: (1, 2, 4, 1), 38: (2, 3, 5, 2), 50: (3, 4, 6, 3)}


def _variants() -> dict[str, ResNetConfig]:
    rows: list[ResNetConfig] = []
    for layers, depths in DEPTHS.items():
        for small in (False, True):
            if layers == 14 and not small:
                continue  # a toy at 224 pixels
            end = "_small" if small else ""
            convolution = ResNetConfig(f"resnet{layers}{end}", depths, small=small)
            stem = dataclasses.replace(
                convolution, name=f"sasa_resnet{layers}_convstem{end}", attention_stages=ALL_STAGES
            )
            full = dataclasses.replace(stem, name=f"sasa_resnet{layers}{end}", stem="attention")
            rows += [convolution, stem, full]
    return {row.name: row for row in rows}


VARIANTS = _variants()


def list_models(pattern: str | None = None) -> list[str]:
    """Name the models that `create_model` knows.

    Args:
        pattern: shell-style, as in `"sasa_*_small"`; None names all.

    Example:
        >>> list_models("*resnet50")
        ['resnet50', 'sasa_resnet50']
    """
    return [name for name in VARIANTS if pattern is None or fnmatch.fnmatchcase(name, pattern)]


def create_model(name: str, **overrides: Any) -> ResNet:
    """Make a model by its name, with random weights.

    `resnet26|38|50` are the convolutional baselines, `sasa_resnet26|38|50` attend everywhere,
    `sasa_resnet26|38|50_convstem` attend everywhere but in the stem. The ending `_small` keeps the resolution
    in the stem, for images of 28 to 64 pixels; 14 layers exist in that form alone.

    Args:
        name: one of `list_models()`.
        overrides: any field of `ResNetConfig` but the name: depths, width, num_classes, in_channels,
            attention_stages, stem, stem_values, small, kernel_size, num_heads, position, content, border,
            shared_tables, drop_path, batch_norm_momentum, backend.

    Raises:
        UnknownNameError: no model or override has this name; the message lists the known ones.
        ArgumentError: an override has a value that cannot be used.

    Example:
        >>> model = create_model("sasa_resnet26", num_classes=10)
        >>> sum(p.numel() for p in model.parameters())
        8294690
    """
    known = [field.name for field in dataclasses.fields(ResNetConfig) if field.name != "name"]
    if name not in list_models():
        hint = closest(str(name), list_models())
        raise UnknownNameError(message("create_model", "name must be a known model", repr(name), hint=hint))
    for override in overrides:
        if override not in known:
            hint = closest(override, known)
            raise UnknownNameError(
                message("create_model", "overrides must be known", repr(override), hint=hint)
            )
    # Lists come in from JSON and YAML; a config is compared and hashed.
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in overrides.items()
    }
    return ResNet(dataclasses.replace(VARIANTS[name], **values))
