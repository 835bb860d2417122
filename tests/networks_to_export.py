"""Small networks whose outputs differ from image to image, as those of trained ones do."""

from typing import Any

from torch import nn

from lookaround import create_model
from lookaround.models import ModelRecord

CLASSES = ["cat", "dog", "emu"]
PREPROCESSING = {"image_size": 20, "in_channels": 3, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.25]}
SMALL: dict[str, Any] = {"num_classes": 3, "width": 0.125, "num_heads": 2, "kernel_size": 3}
# One level, and attention in the heads alone: what a detector exports beside a classifier is there.
ONE_LEVEL: dict[str, Any] = {
    "attention_stages": [],
    "stem": "convolution",
    "pyramid": "convolution",
    "pyramid_channels": 16,
    "head_depth": 1,
    "levels": [5],
}


def classifier(name: str = "sasa_resnet14_small", **overrides: Any) -> nn.Module:
    """Make a classifier with one attending stage."""
    stages = {} if name.startswith("resnet") else {"attention_stages": [3]}
    return stir(create_model(name, **{**SMALL, **stages, **overrides}))


def detector(**overrides: Any) -> nn.Module:
    """Make a detector that finds something in noise."""
    model = stir(create_model("sasa_retinanet_resnet14_small", **{**SMALL, **ONE_LEVEL, **overrides}))
    for branch in (model.head.classes, model.head.boxes):
        nn.init.normal_(branch.predict.weight, std=0.3)
    return model


def stir(model: nn.Module) -> nn.Module:
    """Give batch norms statistics and weights as after some training."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def record(model: nn.Module, **preprocessing: Any) -> ModelRecord:
    """Describe a network as `save_model` does."""
    config = model.config
    return ModelRecord(
        config.name, config.overrides(), PREPROCESSING | preprocessing, CLASSES, category_ids=[3, 5, 8]
    )
