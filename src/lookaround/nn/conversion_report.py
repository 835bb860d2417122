"""What `replace_convolutions` did to a network."""

from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import Any

SHOWN_NAMES = 3  # of the convolutions that stay for the same reasons


@dataclass(frozen=True)
class Replaced:
    """A convolution that attention stands in the place of.

    Attributes:
        names: its places in the network; more than one if it is shared.
        convolution: what it was.
        attention: what is there now.
        parameters_before: of the convolution.
        parameters_after: of the attention.
    """

    names: tuple[str, ...]
    convolution: str
    attention: str
    parameters_before: int
    parameters_after: int


@dataclass(frozen=True)
class Left:
    """A convolution that stayed.

    Attributes:
        names: its places in the network.
        convolution: what it is.
        reasons: every reason, not the first alone.
    """

    names: tuple[str, ...]
    convolution: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class ConversionReport:
    """What was replaced, what was left and why, and what the network costs before and after.

    Attributes:
        replaced: in the order of the network.
        left: in the order of the network.
        options: of the attention, as `LocalAttention2d` takes them.
        parameters_before: of the whole network.
        parameters_after: of the whole network.
        image_size: for which FLOPs were counted; None if they were not.
        flops_before: products for one image, two FLOPs for each multiply-add; see `count_flops`.
        flops_after: the same, with the attention.
    """

    replaced: tuple[Replaced, ...]
    left: tuple[Left, ...]
    options: dict[str, Any] = field(default_factory=dict)
    parameters_before: int = 0
    parameters_after: int = 0
    image_size: tuple[int, int] | None = None
    flops_before: int | None = None
    flops_after: int | None = None

    @property
    def replaced_names(self) -> list[str]:
        """Every place that is attention now."""
        return [name for row in self.replaced for name in row.names]

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain data, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """Return a table: what was replaced, what was left with its reasons, costs."""
        total = len(self.replaced) + len(self.left)
        lines = [f"replaced {len(self.replaced)} of {total} convolutions", *self._replaced_lines()]
        if self.left:
            lines += [f"left {len(self.left)}", *self._left_lines()]
        lines.append(f"parameters  {self.parameters_before:,} -> {self.parameters_after:,}")
        if self.image_size is not None and self.flops_before is not None and self.flops_after is not None:
            size = "x".join(map(str, self.image_size))
            before, after = (flops / 1e9 for flops in (self.flops_before, self.flops_after))
            lines.append(f"GFLOPs at {size}  {before:.3f} -> {after:.3f}")
        return "\n".join(lines)

    def _replaced_lines(self) -> list[str]:
        rows = [(", ".join(row.names), row.convolution, row.attention) for row in self.replaced]
        widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
        return [f"  {name:<{widths[0]}}  {old:<{widths[1]}}  -> {new}" for name, old, new in rows]

    def _left_lines(self) -> list[str]:
        groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for row in self.left:
            groups[row.reasons].append(row.names[0])
        lines = []
        for reasons, names in groups.items():
            shown = ", ".join(names[:SHOWN_NAMES])
            more = f", and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
            lines += [f"  {shown}{more}", *(f"    {reason}" for reason in reasons)]
        return lines
