"""Our networks in timm: after `import lookaround.integrations.timm`, `timm.create_model` knows them.

```
import timm
import lookaround.integrations.timm

timm.create_model("sasa_resnet50", num_classes=10)
timm.create_model("lookaround_resnet50", features_only=True)    # convolutional; timm has its own resnet50
```

Detectors are not registered: timm has none. Nothing that timm has is replaced.
"""

import sys
import warnings
from collections import deque
from functools import partial
from typing import Any

import timm
from timm.models import DefaultCfg, PretrainedCfg, build_model_with_cfg, register_model
from torch import nn

from lookaround.integrations.timm_names import timm_name
from lookaround.integrations.timm_resnet import STAGES, TimmResNet
from lookaround.models.variants import VARIANTS, list_models

COMMON: dict[str, Any] = {
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "interpolation": "bilinear",
    "classifier": "fc",
    "license": "apache-2.0",
    "paper_name": "Stand-Alone Self-Attention in Vision Models",
    "paper_ids": "arXiv:1906.05909",
}

__all__ = ["TimmResNet", "timm_name"]
default_cfgs: dict[str, DefaultCfg] = {}  # timm looks for it here


def describe(name: str) -> PretrainedCfg:
    """Return timm's description of one of our networks without weights: sizes, normalisation, last layer.

    Args:
        name: our name.

    Example:
        >>> describe("sasa_resnet50").pool_size, describe("sasa_resnet50_small").input_size
        ((7, 7), (3, 32, 32))
    """
    config = VARIANTS[name]
    size, crop = (32, 1.0) if config.small else (224, 0.875)
    last = size // (8 if config.small else 32)
    return PretrainedCfg(
        architecture=timm_name(name),
        input_size=(3, size, size),
        pool_size=(last, last),
        crop_pct=crop,
        first_conv="stem.conv" if config.stem == "convolution" else None,
        **COMMON,
    )


def _register(name: str) -> None:
    """Tell timm of one of our networks, unless it has another model of this name."""
    registered = timm_name(name)
    if timm.is_model(registered):
        warnings.warn(f"lookaround: timm has its own {registered!r}; ours is not registered.", stacklevel=2)
        return

    def create(pretrained: bool = False, **arguments: Any) -> nn.Module:
        model: nn.Module = build_model_with_cfg(
            partial(TimmResNet, name),
            registered,
            pretrained,
            feature_cfg={"out_indices": tuple(range(len(STAGES)))},
            **arguments,
        )
        return model

    create.__name__ = create.__qualname__ = registered
    create.__doc__ = f"Make {name} of lookaround; arguments are those of `TimmResNet`."
    setattr(sys.modules[__name__], registered, create)
    cfg = describe(name)
    default_cfgs[registered] = DefaultCfg(tags=deque([""]), cfgs={"": cfg})
    register_model(create)


for _name in list_models(task="classification"):
    _register(_name)
