"""What timm calls our networks, and how it describes them: plain data, made without timm."""

from collections.abc import Mapping
from typing import Any

from lookaround.models.config import ResNetConfig
from lookaround.models.variants import VARIANTS

PREFIX = "lookaround_"
# Arguments of timm's own, and options that change nothing of what weights mean.
NOT_OF_THE_ARCHITECTURE = {"num_classes", "in_channels", "drop_path", "batch_norm_momentum", "backend"}


def timm_name(name: str) -> str:
    """Return the name under which timm has one of our networks.

    The attention networks keep theirs. The convolutional ones get a prefix, for timm has a `resnet50` of its
    own with other weights.

    Example:
        >>> timm_name("sasa_resnet50"), timm_name("resnet50")
        ('sasa_resnet50', 'lookaround_resnet50')
    """
    return name if name.startswith("sasa_") else f"{PREFIX}{name}"


def timm_arguments(config: ResNetConfig) -> dict[str, Any]:
    """Return what `timm.create_model` needs besides the name to make the network of a configuration.

    Example:
        >>> from lookaround.models.variants import configure
        >>> timm_arguments(configure("sasa_resnet14_small", width=0.25, in_channels=1))
        {'width': 0.25, 'in_chans': 1}
    """
    usual = VARIANTS[config.name].overrides()
    changed = {key: value for key, value in config.overrides().items() if value != usual[key]}
    arguments = {key: value for key, value in changed.items() if key not in NOT_OF_THE_ARCHITECTURE}
    return arguments | {"in_chans": config.in_channels}


def timm_description(
    config: ResNetConfig, preprocessing: Mapping[str, Any] | None = None, class_names: list[str] | None = None
) -> dict[str, Any]:
    """Return timm's `PretrainedCfg` of a network as plain values.

    Args:
        config: of the network.
        preprocessing: how its images are prepared, as in a `ModelRecord`; None: as for ImageNet, and in the
            forms for small images likewise with 32 pixels.
        class_names: names of its classes.
    """
    given = dict(preprocessing) if preprocessing else {}
    size = given.get("image_size", 32 if config.small else 224)
    reduction = 8 if config.small else 32
    imagenet = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]) if config.in_channels == 3 else ([0.5], [0.5])
    description = {
        "architecture": timm_name(config.name),
        "num_classes": config.num_classes,
        "input_size": (config.in_channels, size, size),
        "pool_size": (-(-size // reduction),) * 2,
        "crop_pct": given.get("crop_fraction", 1.0 if config.small else 0.875),
        "interpolation": "bilinear",
        "mean": tuple(given.get("mean", imagenet[0])),
        "std": tuple(given.get("std", imagenet[1])),
        "first_conv": "stem.conv" if config.stem == "convolution" else None,
        "classifier": "fc",
        "license": "apache-2.0",
        "paper_name": "Stand-Alone Self-Attention in Vision Models",
        "paper_ids": "arXiv:1906.05909",
    }
    return description | ({"label_names": tuple(class_names)} if class_names else {})
