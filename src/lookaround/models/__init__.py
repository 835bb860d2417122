"""Networks by name, what they cost, and their files."""

from lookaround.models.checkpoint import ModelRecord, load_backbone, load_model, load_weights, save_model
from lookaround.models.config import ResNetConfig
from lookaround.models.costs import Costs, model_costs
from lookaround.models.fusion import fuse
from lookaround.models.pretrained import list_pretrained
from lookaround.models.resnet import ResNet
from lookaround.models.retinanet_config import RetinaNetConfig
from lookaround.models.variants import create_model, list_models

__all__ = [
    "Costs",
    "ModelRecord",
    "ResNet",
    "ResNetConfig",
    "RetinaNetConfig",
    "create_model",
    "fuse",
    "list_models",
    "list_pretrained",
    "load_backbone",
    "load_model",
    "load_weights",
    "model_costs",
    "save_model",
]
