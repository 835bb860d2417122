"""What a network is made of, as plain data."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from lookaround.errors import ArgumentError, message
from lookaround.nn.local_attention import POSITIONS, PROJECTIONS
from lookaround.nn.stem import STEM_VALUES
from lookaround.ops.call import BORDERS, check_kernel_size
from lookaround.ops.dispatch import check_backend

STEMS = ("convolution", "attention")
SCALES = ("initialization", "equation")
ATTENTION_BLOCKS = ("all", "first", "last", "alternate")

# What a value may be, by field; a config may come from a file that anyone wrote.
_COUNTS = ("num_classes", "in_channels", "num_heads")
_FLAGS = ("small", "content", "shared_tables")
_NUMBERS = ("width", "drop_path", "batch_norm_momentum")
_CHOICES: dict[str, tuple[str, ...]] = {
    "stem": STEMS,
    "stem_values": STEM_VALUES,
    "position": POSITIONS,
    "border": BORDERS,
    "scale": SCALES,
    "projection": PROJECTIONS,
    "attention_blocks": ATTENTION_BLOCKS,
}


@dataclass(frozen=True)
class ResNetConfig:
    """Everything that tells one of our ResNets from another.

    Attributes:
        name: the named variant it was made from.
        depths: bottleneck blocks in each of the four stages.
        width: factor of all channel numbers; 1.0 is the paper's, whose stages put out 256 … 2048 channels.
        num_classes: size of the last layer.
        in_channels: channels of the images.
        attention_stages: which of the stages 1, 2, 3, 4 attend instead of convolving.
        attention_blocks: which blocks of such a stage attend: "all", the "first", the "last", or in
            "alternate" every second one, beginning with the second; the others convolve.
        stem: "convolution" or "attention".
        stem_values: values of an attention stem: "spatially_aware", "plain" or "convolution".
        small: whether the stem keeps the resolution, for images of 28 to 64 pixels.
        kernel_size: window of the attention, an integer or a pair.
        num_heads: heads of the attention.
        position: "relative", "absolute" or "none".
        content: whether the logits have the term q·k.
        border: "mask" or "zeros".
        shared_tables: whether the heads share the relative tables.
        scale: where the factor 1/sqrt(head_dim) of the logits stands: in the "initialization" of the query
            map, or in the "equation" itself.
        projection: "full", or "grouped": each head from its own share of the channels.
        drop_path: probability of dropping the last block, growing linearly from 0 at the first.
        batch_norm_momentum: weight of the newest batch in the running statistics (1 - decay).
        backend: which implementation of the operator runs.
    """

    name: str
    depths: tuple[int, int, int, int]
    width: float = 1.0
    num_classes: int = 1000
    in_channels: int = 3
    attention_stages: tuple[int, ...] = ()
    attention_blocks: str = "all"
    stem: str = "convolution"
    stem_values: str = "spatially_aware"
    small: bool = False
    kernel_size: int | tuple[int, int] = 7
    num_heads: int = 8
    position: str = "relative"
    content: bool = True
    border: str = "mask"
    shared_tables: bool = True
    scale: str = "initialization"
    projection: str = "full"
    drop_path: float = 0.0
    batch_norm_momentum: float = 0.1
    backend: str = "auto"

    def __post_init__(self) -> None:
        for name in _COUNTS:
            value = getattr(self, name)
            self._require(is_count(value), f"{name} must be an integer >= 1", value)
        for name in _FLAGS:
            value = getattr(self, name)
            self._require(isinstance(value, bool), f"{name} must be True or False", value)
        for name in _NUMBERS:
            value = getattr(self, name)
            self._require(is_number(value), f"{name} must be a finite number", value)
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            self._require(value in choices, f"{name} must be one of {', '.join(choices)}", value)
        self._check_ranges()
        check_kernel_size("create_model", self.kernel_size)
        check_backend("create_model", self.backend)
        object.__setattr__(self, "attention_stages", tuple(sorted(set(self.attention_stages))))

    def _check_ranges(self) -> None:
        stages, depths = self.attention_stages, self.depths
        fits = isinstance(depths, tuple) and len(depths) == 4 and all(is_count(depth) for depth in depths)
        self._require(fits, "depths must be four integers >= 1", depths)
        fits = isinstance(stages, tuple) and all(is_count(stage) and stage <= 4 for stage in stages)
        self._require(fits, "attention_stages must be taken from 1, 2, 3, 4", stages)
        self._require(self.width > 0, "width must be > 0", self.width)
        self._require(0 <= self.drop_path < 1, "drop_path must be in [0, 1)", self.drop_path)
        momentum = self.batch_norm_momentum
        self._require(0 < momentum <= 1, "batch_norm_momentum must be in (0, 1]", momentum)

    def _require(self, holds: bool, must: str, got: object) -> None:
        if not holds:
            raise ArgumentError(message("create_model", must, repr(got)))

    def attends(self, stage: int, block: int) -> bool:
        """Tell whether a block attends: the stage counts from 1, the block in it from 0."""
        last = self.depths[stage - 1] - 1
        chosen = {"all": True, "first": block == 0, "last": block == last, "alternate": block % 2 == 1}
        return stage in self.attention_stages and chosen[self.attention_blocks]

    def channels(self, base: int) -> int:
        """Scale a channel number of the network of width 1, to a whole number of channels."""
        return max(1, round(base * self.width))

    def overrides(self) -> dict[str, Any]:
        """Return all but the name, as plain types: `create_model(name, **overrides)` makes it again."""
        fields = dataclasses.asdict(self)
        del fields["name"]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}


def is_count(value: object) -> bool:
    """Tell whether a value is an integer >= 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def is_number(value: object) -> bool:
    """Tell whether a value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
