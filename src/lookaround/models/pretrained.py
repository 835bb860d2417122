"""Weights of ours that come with the package: which there are, and models that begin with them.

Each folder of `lookaround/weights` holds those of one network on one data set, in float16, with their record
and a card that says how they were made and what they reach. The folder's name is their tag.
"""

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lookaround.errors import ArgumentError, CheckpointError, UnknownNameError, closest, message
from lookaround.models.checkpoint import misfits, read_tensors
from lookaround.models.config import ResNetConfig
from lookaround.models.record import SHIPPED, WEIGHTS_NAME, read_record, shipped_tags
from lookaround.models.variants import Model, configure, create_model

# Overrides that may be others than those of the training: of the head, the input, training and detecting.
FREE = {
    "num_classes",
    "in_channels",
    "drop_path",
    "batch_norm_momentum",
    "backend",
    "focal_alpha",
    "focal_gamma",
    "box_loss_delta",
    "box_loss_weight",
    "foreground_iou",
    "background_iou",
    "score_threshold",
    "nms_threshold",
    "candidates_per_level",
    "detections_per_image",
}
# Where the first layer's weights count the image's channels, by the name of the weights.
CHANNEL_DIMENSIONS = {
    "stem.conv.weight": 1,
    "stem.query_weight": 2,
    "stem.key_weight": 2,
    "stem.value_weight": 2,
    "stem.value_conv.weight": 1,
}
BODY = "backbone.body."


def list_pretrained() -> dict[str, str]:
    """Name the weights that come with the package: their tags, with the models they are of.

    Example:
        >>> from lookaround import create_model
        >>> for tag, name in list_pretrained().items():
        ...     model = create_model(name, pretrained=tag)
    """
    return {tag: read_record(SHIPPED / tag).name for tag in shipped_tags()}


def default_tag(name: str) -> str:
    """Return the tag that `pretrained=True` stands for: the first, in alphabetical order, of this model.

    Raises:
        UnknownNameError: there are no weights of this model.
    """
    shipped = list_pretrained()
    tags = [tag for tag, of in shipped.items() if of == name]
    if not tags:
        listing = "; ".join(f"{of} (pretrained={tag!r})" for tag, of in shipped.items())
        hint = f"there are weights of {listing}." if shipped else "make it without, and train it."
        must = "name must be of a model whose weights come with the package"
        raise UnknownNameError(message("create_model", must, repr(name), hint=hint))
    return tags[0]


def create_pretrained(name: str, tag: str, overrides: Mapping[str, Any]) -> Model:
    """Make a model that begins with weights of ours; what `create_model(name, pretrained=tag)` does.

    Args:
        name: of the model.
        tag: of the weights.
        overrides: those of `FREE`; any other must be as in the training. For another `num_classes` the
            last layers begin at random, with a warning. For other `in_channels` the first layer is adapted.

    Raises:
        UnknownNameError: there are no such weights of this model, or an override is not known.
        ArgumentError: an override would make these weights another network's.
    """
    default_tag(name)
    tags = [known for known, of in list_pretrained().items() if of == name]
    if tag not in tags:
        must = f"pretrained must be True or the tag of weights of {name}"
        raise UnknownNameError(message("create_model", must, repr(tag), hint=closest(str(tag), tags)))
    record = read_record(SHIPPED / tag)
    trained = configure(name, **record.overrides)
    config = configure(name, **record.overrides | dict(overrides))
    _refuse_other_networks(config, trained, tag)
    model = create_model(name, **config.overrides())
    if next(model.parameters()).is_meta:  # made to be counted; there is nowhere to put numbers
        return model
    tensors = adapt_channels(read_tensors("create_model", SHIPPED / tag / WEIGHTS_NAME), config.in_channels)
    _load(model, tensors, new_head=config.num_classes != trained.num_classes)
    return model


def adapt_channels(tensors: Mapping[str, Tensor], in_channels: int) -> dict[str, Tensor]:
    """Make the first layer's weights those of images with another number of channels.

    From many channels to one they are added, so that a grey image gives what its copies gave; in any other
    case they are repeated and scaled, so that channels that are alike give what they gave.

    Args:
        tensors: of a network of ours, by name.
        in_channels: that the network shall have.

    Returns:
        All tensors, those of the first layer in new form where they had another number of channels.
    """
    adapted = dict(tensors)
    for key, tensor in tensors.items():
        dimension = CHANNEL_DIMENSIONS.get(key.removeprefix(BODY))
        if dimension is not None and tensor.shape[dimension] != in_channels:
            adapted[key] = _adapt(tensor, dimension, in_channels)
    return adapted


def _adapt(tensor: Tensor, dimension: int, in_channels: int) -> Tensor:
    channels, exact = tensor.shape[dimension], tensor.float()
    if in_channels == 1:
        return exact.sum(dimension, keepdim=True)
    repeats = [1] * tensor.dim()
    repeats[dimension] = -(-in_channels // channels)
    return exact.repeat(repeats).narrow(dimension, 0, in_channels) * (channels / in_channels)


def _refuse_other_networks(config: ResNetConfig, trained: ResNetConfig, tag: str) -> None:
    wanted, had = config.overrides(), trained.overrides()
    lines = [
        f"{key}: expected {had[key]!r}; actual: {wanted[key]!r}"
        for key in wanted
        if key not in FREE and wanted[key] != had[key]
    ]
    if lines:
        must = f"overrides must leave the network that {tag!r} was trained with as it is"
        hint = "leave them out, or make the model without pretrained."
        raise ArgumentError(message("create_model", must, f"{len(lines)} other", lines=lines, hint=hint))


def _load(model: Model, tensors: dict[str, Tensor], new_head: bool) -> None:
    """Put tensors into a model; of a model with a new head, those that fit."""
    expected = model.state_dict()
    left_out = [key for key in tensors if key in expected and tensors[key].shape != expected[key].shape]
    wrong = misfits(model, {key: expected[key] if key in left_out else tensors[key] for key in tensors})
    if wrong or (left_out and not new_head):
        must = f"the weights that come with the package must be those of {model.config.name}"
        raise CheckpointError(message("create_model", must, "others", lines=wrong or left_out))
    model.load_state_dict({key: tensors[key] for key in tensors if key not in left_out}, strict=False)
    if left_out:
        said = f"create_model: num_classes is not that of the weights: {', '.join(left_out)} begin at random."
        warnings.warn(said, stacklevel=4)
