"""The named models, one row each, and where each comes from."""

import dataclasses
import fnmatch
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import nn

from lookaround.errors import UnknownNameError, closest, message
from lookaround.models.config import ResNetConfig
from lookaround.models.resnet import ResNet
from lookaround.models.retinanet_config import RetinaNetConfig

if TYPE_CHECKING:
    from lookaround.models.retinanet import RetinaNet

    Model: TypeAlias = ResNet | RetinaNet
else:
    Model = nn.Module  # a detector needs torchvision, which is imported when the first one is made

CLASSIFICATION, DETECTION = "classification", "detection"
ALL_STAGES = (1, 2, 3, 4)
# Blocks in each stage: Ramachandran et al. 2019, section 4.1; 14 is ours, one block a stage for small images.
DEPTHS = {14: (1, 1, 1, 1), 26: (1, 2, 4, 1), 38: (2, 3, 5, 2), 50: (3, 4, 6, 3)}

COCO_CLASSES = 90
# For objects of 16 to 64 pixels in scenes of about 128; ours. Small in all but the stem, which reduces by 4.
SMALL_DETECTOR: dict[str, Any] = {
    "small": False,
    "width": 0.25,
    "num_heads": 4,
    "pyramid_channels": 64,
    "head_depth": 2,
    "residual": True,
    "norm": "layer",
    "levels": (3, 4, 5),
    "anchor_scale": 2.0,
}


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
    rows += [_detector(row) for row in rows]
    return {row.name: row for row in rows}


def _detector(backbone: ResNetConfig) -> RetinaNetConfig:
    """Put a RetinaNet on top: by attention on backbones that attend."""
    kind = "attention" if backbone.attention_stages else "convolution"
    values: dict[str, Any] = {
        field.name: getattr(backbone, field.name) for field in dataclasses.fields(backbone)
    }
    values |= {"name": backbone.name.replace("resnet", "retinanet_resnet"), "num_classes": COCO_CLASSES}
    if backbone.small:
        values |= SMALL_DETECTOR
    return RetinaNetConfig(**values, pyramid=kind, heads=kind)


VARIANTS = _variants()


def list_models(pattern: str | None = None, task: str | None = None) -> list[str]:
    """Name the models that `create_model` knows.

    Args:
        pattern: shell-style, as in `"sasa_*_small"`; None names all.
        task: "classification" or "detection"; None names both.

    Raises:
        UnknownNameError: there is no such task.

    Example:
        >>> list_models("*_resnet50")
        ['sasa_resnet50', 'retinanet_resnet50', 'sasa_retinanet_resnet50']
        >>> list_models("*_resnet50", task="classification")
        ['sasa_resnet50']
    """
    tasks = (CLASSIFICATION, DETECTION)
    if task is not None and task not in tasks:
        hint = closest(str(task), tasks)
        raise UnknownNameError(message("list_models", "task must be known", repr(task), hint=hint))
    return [
        name
        for name in VARIANTS
        if (pattern is None or fnmatch.fnmatchcase(name, pattern)) and task in (None, task_of(name))
    ]


def task_of(name: str) -> str:
    """Tell what a named model does: "classification" or "detection"."""
    return DETECTION if isinstance(VARIANTS[name], RetinaNetConfig) else CLASSIFICATION


def create_model(name: str, *, pretrained: bool | str = False, **overrides: Any) -> Model:
    """Make a model by its name, with random weights, or with weights of ours.

    `resnet26|38|50` are the convolutional baselines, `sasa_resnet26|38|50` attend everywhere,
    `sasa_resnet26|38|50_convstem` attend everywhere but in the stem. The ending `_small` keeps the resolution
    in the stem, for images of 28 to 64 pixels; 14 layers exist in that form alone.

    With `retinanet_` before `resnet` each is the backbone of a detector, whose pyramid and heads convolve or
    attend as the backbone does. There `_small` is narrow, for objects of 16 to 64 pixels.

    Args:
        name: one of `list_models()`.
        pretrained: True, or the tag of weights that come with the package, see `list_pretrained()`; True is
            the first of this model. The overrides of their training hold, but for what may differ: another
            `num_classes` gets new last layers, with a warning, other `in_channels` an adapted first layer.
        overrides: any field of `ResNetConfig`, or of `RetinaNetConfig` for a detector, but the name.

    Returns:
        A `ResNet`, or a `RetinaNet`, which needs torchvision.

    Raises:
        UnknownNameError: no model, override or weights have this name; the message lists the known ones.
        ArgumentError: an override has a value that cannot be used.

    Example:
        >>> model = create_model("sasa_resnet26", num_classes=10)
        >>> sum(p.numel() for p in model.parameters())
        8294690
    """
    config = configure(name, **overrides)
    if pretrained is not False:
        from lookaround.models.pretrained import create_pretrained, default_tag

        return create_pretrained(name, default_tag(name) if pretrained is True else pretrained, overrides)
    if not isinstance(config, RetinaNetConfig):
        return ResNet(config)
    from lookaround.models.retinanet import RetinaNet

    return RetinaNet(config)


def configure(name: str, **overrides: Any) -> ResNetConfig:
    """Return what `create_model` makes a model of, from the same arguments.

    Raises:
        UnknownNameError: no model or override has this name.
        ArgumentError: an override has a value that cannot be used.

    Example:
        >>> configure("sasa_resnet26", width=0.5).channels(64)
        32
    """
    if name not in list_models():
        hint = closest(str(name), list_models())
        raise UnknownNameError(message("create_model", "name must be a known model", repr(name), hint=hint))
    variant = VARIANTS[name]
    known = [field.name for field in dataclasses.fields(variant) if field.name != "name"]
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
    return dataclasses.replace(variant, **values)
