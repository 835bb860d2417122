"""Our networks in timm: after `import lookaround.integrations.timm`, `timm.create_model` knows them.

```
import timm
import lookaround.integrations.timm

timm.create_model("sasa_resnet50", num_classes=10)
timm.create_model("lookaround_resnet50", features_only=True)    # convolutional; timm has its own resnet50
timm.create_model("sasa_resnet14_small.digits", pretrained=True)
```

Detectors are not registered: timm has none. Nothing that timm has is replaced.
"""

import sys
import warnings
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import Any

import timm
from timm.models import DefaultCfg, PretrainedCfg, build_model_with_cfg, register_model
from torch import Tensor, nn

from lookaround.integrations.timm_format import timm_arguments, timm_description, timm_name
from lookaround.integrations.timm_resnet import STAGES, TimmResNet
from lookaround.models.pretrained import adapt_channels, list_pretrained
from lookaround.models.record import find_files, read_record
from lookaround.models.variants import VARIANTS, configure, list_models

__all__ = ["TimmResNet", "timm_name"]
default_cfgs: dict[str, DefaultCfg] = {}  # timm looks for it here


def describe(name: str, tag: str | None = None) -> PretrainedCfg:
    """Return timm's description of one of our networks: sizes, normalisation, last layer, where weights are.

    Args:
        name: our name.
        tag: of weights that come with the package; None: without weights.

    Example:
        >>> describe("sasa_resnet50").pool_size, describe("sasa_resnet50_small").input_size
        ((7, 7), (3, 32, 32))
    """
    if tag is None:
        return PretrainedCfg(**timm_description(VARIANTS[name]))
    record = read_record(tag)
    config = configure(name, **record.overrides)
    description = timm_description(config, record.preprocessing, record.class_names)
    return PretrainedCfg(**description, tag=tag, file=str(find_files(tag).weights))


def adapt(tensors: Mapping[str, Tensor], model: TimmResNet) -> dict[str, Tensor]:
    """Fit an attention stem's weights to the channels of a model; timm does so for a convolution itself."""
    if "stem.conv.weight" in tensors:
        return dict(tensors)
    return adapt_channels(tensors, model.in_chans)


def _register(name: str) -> None:
    """Tell timm of one of our networks, unless it has another model of this name."""
    registered = timm_name(name)
    if timm.is_model(registered):
        warnings.warn(f"lookaround: timm has its own {registered!r}; ours is not registered.", stacklevel=2)
        return
    tags = [tag for tag, of in list_pretrained().items() if of == name]
    cfgs = {"": describe(name), **{tag: describe(name, tag) for tag in tags}}
    default_cfgs[registered] = DefaultCfg(deque(cfgs), cfgs, is_pretrained=bool(tags))

    def create(pretrained: bool = False, **arguments: Any) -> nn.Module:
        if pretrained and tags and arguments.get("pretrained_cfg") is None:
            arguments["pretrained_cfg"] = tags[0]
        if isinstance(tag := arguments.get("pretrained_cfg"), str) and tag in tags:
            arguments = timm_arguments(configure(name, **read_record(tag).overrides)) | arguments
        model: nn.Module = build_model_with_cfg(
            partial(TimmResNet, name),
            registered,
            pretrained,
            feature_cfg={"out_indices": tuple(range(len(STAGES)))},
            pretrained_filter_fn=adapt,
            **arguments,
        )
        return model

    create.__name__ = create.__qualname__ = registered
    create.__doc__ = f"Make {name} of lookaround; arguments are those of `TimmResNet`."
    setattr(sys.modules[__name__], registered, create)
    register_model(create)


for _name in list_models(task="classification"):
    _register(_name)
