"""What a network is made of, as plain data."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from lookaround.errors import ArgumentError, message

STEMS = ("convolution", "attention")


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
        stem: "convolution" or "attention".
        stem_values: values of an attention stem: "spatially_aware", "plain" or "convolution".
        small: whether the stem keeps the resolution, for images of 28 to 64 pixels.
        kernel_size: window of the attention, an integer or a pair.
        num_heads: heads of the attention.
        position: "relative", "absolute" or "none".
        content: whether the logits have the term q·k.
        border: "mask" or "zeros".
        shared_tables: whether the heads share the relative tables.
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
    stem: str = "convolution"
    stem_values: str = "spatially_aware"
    small: bool = False
    kernel_size: int | tuple[int, int] = 7
    num_heads: int = 8
    position: str = "relative"
    content: bool = True
    border: str = "mask"
    shared_tables: bool = True
    drop_path: float = 0.0
    batch_norm_momentum: float = 0.1
    backend: str = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "attention_stages", tuple(sorted(set(self.attention_stages))))
        self._check()

    def _check(self) -> None:
        rules: list[tuple[bool, str, object]] = [
            (
                len(self.depths) == 4 and min(self.depths) >= 1,
                "depths must be four integers >= 1",
                self.depths,
            ),
            (self.width > 0, "width must be > 0", self.width),
            (self.num_classes >= 1, "num_classes must be >= 1", self.num_classes),
            (self.in_channels >= 1, "in_channels must be >= 1", self.in_channels),
            (
                set(self.attention_stages) <= {1, 2, 3, 4},
                "attention_stages must be taken from 1, 2, 3, 4",
                self.attention_stages,
            ),
            (self.stem in STEMS, f"stem must be one of {STEMS}", repr(self.stem)),
            (0 <= self.drop_path < 1, "drop_path must be in [0, 1)", self.drop_path),
            (
                0 < self.batch_norm_momentum <= 1,
                "batch_norm_momentum must be in (0, 1]",
                self.batch_norm_momentum,
            ),
        ]
        for holds, must, got in rules:
            if not holds:
                raise ArgumentError(message("create_model", must, got))

    def channels(self, base: int) -> int:
        """Scale a channel number of the network of width 1, to a whole number of channels."""
        return max(1, round(base * self.width))

    def overrides(self) -> dict[str, Any]:
        """Return all but the name, as plain types: `create_model(name, **overrides)` makes it again."""
        fields = dataclasses.asdict(self)
        del fields["name"]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}
