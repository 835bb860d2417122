"""The layer: a textual swap for a spatial convolution."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lookaround import ops
from lookaround.errors import ArgumentError, ShapeError, closest, message
from lookaround.nn.grouped_linear import GroupedLinear
from lookaround.nn.pointwise import pointwise_linear
from lookaround.nn.position import sinusoidal_embedding
from lookaround.nn.projected_attention import Finish, Layout, Parameters, attend_to_projection
from lookaround.nn.tracing import as_one_node, is_traced
from lookaround.ops.call import check_border, check_kernel_size, check_pair, unpack
from lookaround.ops.dispatch import check_backend
from lookaround.ops.local_attention import WindowOptions

POSITIONS = ("relative", "absolute", "none")
PROJECTIONS = ("full", "grouped")


class LocalAttention2d(nn.Module):
    """Replaces every pixel by what it attends to in the window around it.

    Takes and returns images as `nn.Conv2d` does, and stands where `nn.Conv2d(c, c, 3, padding=1, stride=s)`
    stood: the output is `ceil(size / stride)` a side. Query, key and value come from one linear map without
    bias. The output is in channels-last memory, which is also the fastest for the input.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output; a multiple of `num_heads`.
        kernel_size: the window, odd, an integer or a pair (vertical, horizontal).
        stride: attention runs on every pixel, then stride x stride of its outputs are averaged.
        dilation: distance between neighbours in the window.
        num_heads: heads, each with `head_dim = out_channels / num_heads` channels.
        position: "relative": a learned vector per row offset and per column offset, half of head_dim each.
            "absolute": a fixed two-dimensional sinusoid is added to the input. "none".
        content: False drops the keys: logits come from q·[row ; column] alone.
        border: "mask" or "zeros", see `lookaround.local_attention`.
        shared_tables: one pair of relative tables for all heads, or one pair for each.
        scale: factor of the logits. The paper's equation has none, so that 1/sqrt(head_dim) is in the
            initial query map instead.
        bias: whether the linear map has a bias.
        backend: "auto", or a name from `lookaround.ops.list_backends()`.
        device: where the parameters are made.
        dtype: what the parameters are made of.
        projection_kind: "full": every head is made from all input channels, as the paper's parameters count.
            "grouped": head n from group n of them alone, as its text says; needs `in_channels` to be a
            multiple of `num_heads`.

    Parameters:
        | name | shape | initial distribution |
        |---|---|---|
        | projection.weight, query rows | out_channels, in_channels | N(0, 1/(in·head_dim·terms·scale²)) |
        | projection.weight, key rows (not if `content=False`) | out_channels, in_channels | N(0, 1 / in) |
        | projection.weight, value rows | out_channels, in_channels | N(0, 1 / in) |
        | projection.bias (if `bias`) | as many as rows | 0 |
        | row_embedding (if relative) | [num_heads,] kernel height, head_dim / 2 | N(0, 1) |
        | column_embedding (if relative) | [num_heads,] kernel width, head_dim / 2 | N(0, 1) |

        With `projection_kind="grouped"`, in_channels / num_heads stands for in_channels in all of these.
        `terms` is the number of products in the logit (q·k, q·r), so that for input of unit variance the
        initial logits have unit variance at every head_dim.

    Raises:
        ArgumentError: a value that cannot be used, alone or beside the others.

    Source:
        Ramachandran et al. 2019, section 3; stride as average pooling, 8 heads and window 7 from section 4.1.

    Departures from the paper:
        Where it is silent (border, initialisation, sharing of tables) the choice is an option.

    Example:
        >>> import torch
        >>> layer = LocalAttention2d(16, 32, kernel_size=7, stride=2, num_heads=4)
        >>> layer(torch.randn(2, 16, 15, 20)).shape
        torch.Size([2, 32, 8, 10])
    """

    def __init__(  # as nn.Conv2d, a layer takes more arguments than a function should
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 7,
        stride: int | tuple[int, int] = 1,
        dilation: int | tuple[int, int] = 1,
        num_heads: int = 8,
        position: str = "relative",
        content: bool = True,
        border: str = "mask",
        shared_tables: bool = True,
        scale: float = 1.0,
        bias: bool = False,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        projection_kind: str = "full",
    ) -> None:
        super().__init__()
        where = "LocalAttention2d"
        self.in_channels = _check_count("in_channels", in_channels)
        self.out_channels = _check_count("out_channels", out_channels)
        self.num_heads = _check_count("num_heads", num_heads)
        self.kernel_size = check_kernel_size(where, kernel_size)
        self.stride = check_pair(where, "stride", stride)
        self.dilation = check_pair(where, "dilation", dilation)
        self.border = check_border(where, border)
        self.backend = check_backend(where, backend)
        self.position, self.content = position, content
        self.shared_tables, self.scale = shared_tables, scale
        self.projection_kind = projection_kind
        self._check_options()
        self.head_dim = out_channels // num_heads

        maps = 3 if content else 2  # without keys, query and value alone
        self.projection: nn.Linear | GroupedLinear
        if projection_kind == "full":
            self.projection = nn.Linear(
                in_channels, maps * out_channels, bias=bias, device=device, dtype=dtype
            )
        else:
            self.projection = GroupedLinear(
                in_channels, maps * out_channels, num_heads, maps, bias=bias, device=device, dtype=dtype
            )
        if position == "relative":
            shape = () if shared_tables else (num_heads,)
            rows = torch.empty(*shape, self.kernel_size[0], self.head_dim // 2, device=device, dtype=dtype)
            columns = torch.empty(*shape, self.kernel_size[1], self.head_dim // 2, device=device, dtype=dtype)
            self.row_embedding: nn.Parameter | None = nn.Parameter(rows)
            self.column_embedding: nn.Parameter | None = nn.Parameter(columns)
        else:
            self.register_parameter("row_embedding", None)
            self.register_parameter("column_embedding", None)
        self.reset_parameters()

    def _check_options(self) -> None:
        where = "LocalAttention2d"
        if self.out_channels % self.num_heads != 0:
            fitting = [n for n in range(1, self.out_channels + 1) if self.out_channels % n == 0]
            nearest = min(fitting, key=lambda n: abs(n - self.num_heads))
            must = f"num_heads must divide out_channels ({self.out_channels})"
            raise ArgumentError(message(where, must, self.num_heads, hint=f"try num_heads={nearest}."))
        if self.position not in POSITIONS:
            hint = closest(str(self.position), POSITIONS)
            raise ArgumentError(message(where, "position must be known", repr(self.position), hint=hint))
        head_dim = self.out_channels // self.num_heads
        if self.position == "relative" and head_dim % 2 == 1:
            must = "out_channels / num_heads must be even: half of it for the rows, half for the columns"
            raise ArgumentError(message(where, must, head_dim, hint="change num_heads, or position='none'."))
        if not self.content and self.position != "relative":
            must = "content=False needs position='relative', or no logit is left"
            raise ArgumentError(message(where, must, f"position={self.position!r}"))
        self._check_projection()
        if not isinstance(self.scale, (int, float)) or not 0 < abs(self.scale) < math.inf:
            must = "scale must be a finite number other than 0"
            raise ArgumentError(message(where, must, repr(self.scale), hint="try 1.0 or head_dim ** -0.5."))

    def _check_projection(self) -> None:
        where, kind = "LocalAttention2d", self.projection_kind
        if kind not in PROJECTIONS:
            hint = closest(str(kind), PROJECTIONS)
            raise ArgumentError(message(where, "projection_kind must be known", repr(kind), hint=hint))
        if kind == "grouped" and self.in_channels % self.num_heads != 0:
            must = f"num_heads must divide in_channels ({self.in_channels}) of grouped projections"
            hint = "change num_heads, or projection_kind='full'."
            raise ArgumentError(message(where, must, self.num_heads, hint=hint))

    def reset_parameters(self) -> None:
        """Draw the parameters anew from their initial distributions."""
        terms = int(self.content) + int(self.position == "relative")
        inputs = self.projection.weight.shape[1]  # of one output
        query_std = 1 / (abs(self.scale) * math.sqrt(inputs * self.head_dim * terms))
        with torch.no_grad():
            self.projection.weight.normal_(std=1 / math.sqrt(inputs))
            self.projection.weight[: self.out_channels].normal_(std=query_std)
            if self.projection.bias is not None:
                self.projection.bias.zero_()
            for table in (self.row_embedding, self.column_embedding):
                if table is not None:
                    table.normal_()

    def forward(
        self,
        x: Float[Tensor, "*batch in_channels height width"],
        key_padding_mask: Bool[Tensor, "*batch height width"] | None = None,
    ) -> Float[Tensor, "*batch out_channels out_height out_width"]:
        """Attend, then average over the stride.

        Args:
            x: an image, or a batch of images.
            key_padding_mask: True for pixels that are no part of the image; they neither are seen nor count
                in the average over the stride.

        Raises:
            ShapeError: x has not the three or four dimensions or the channels that the layer takes.
        """
        if is_traced(x):
            return as_one_node(self, x, key_padding_mask)
        return self.attend(x, key_padding_mask)

    def attend(
        self, x: Tensor, key_padding_mask: Tensor | None = None, finish: Finish | None = None
    ) -> Tensor:
        """Do `forward`, and for inference what follows it."""
        self._check_input(x)
        if x.dim() == 3:
            mask = None if key_padding_mask is None else key_padding_mask[None]
            return self.attend(x[None], mask, finish)[0]
        tables = self.row_embedding, self.column_embedding
        parameters = Parameters(self._weight(), self.projection.bias, *tables)
        return attend_to_projection(self._pixels(x), parameters, key_padding_mask, self._layout(), finish)

    @property
    def weight(self) -> Tensor:
        """The projection's weight, detached, for code that asks a convolution's for its dtype or device."""
        return self.projection.weight.detach()

    def attention_weights(
        self,
        x: Float[Tensor, "*batch in_channels height width"],
        key_padding_mask: Bool[Tensor, "*batch height width"] | None = None,
    ) -> Float[Tensor, "*batch height width heads kernel_height kernel_width"]:
        """Return where each pixel and head of `x` looks, for pictures; see `ops.attention_weights`."""
        self._check_input(x)
        if x.dim() == 3:
            mask = None if key_padding_mask is None else key_padding_mask[None]
            return self.attention_weights(x[None], mask)[0]
        query, key, _ = unpack(self._project(x))
        return ops.attention_weights(
            query,
            key,
            self.row_embedding,
            self.column_embedding,
            key_padding_mask,
            kernel_size=self.kernel_size,
            dilation=self.dilation,
            scale=self.scale,
            border=self.border,
        )

    def _project(self, x: Tensor) -> Tensor:
        """Compute query, key (if it has keys) and value: batch height width maps heads head_dim."""
        projected = pointwise_linear(self._pixels(x), self._weight(), self.projection.bias)
        return self._layout().split(projected)

    def _weight(self) -> Tensor:
        """Return the weight of the full map: maps·out_channels in_channels."""
        made_by = self.projection
        return made_by.full_weight() if isinstance(made_by, GroupedLinear) else made_by.weight

    def _pixels(self, x: Tensor) -> Tensor:
        pixels = x.permute(0, 2, 3, 1)  # batch height width in_channels: a free view of channels-last memory
        if self.position == "absolute":
            pixels = pixels + sinusoidal_embedding(*pixels.shape[1:], like=pixels)
        return pixels

    def _layout(self) -> Layout:
        options: WindowOptions = {
            "kernel_size": self.kernel_size,
            "dilation": self.dilation,
            "scale": self.scale,
            "border": self.border,
        }
        return Layout(self.num_heads, self.head_dim, self.stride, self.backend, options)

    def _check_input(self, x: Tensor) -> None:
        if x.dim() not in (3, 4) or x.shape[-3] != self.in_channels:
            must = f"x must have the shape (batch, {self.in_channels}, height, width), the batch optional"
            raise ShapeError(message("LocalAttention2d", must, tuple(x.shape)))

    def extra_repr(self) -> str:
        """Show what the layer was made with, leaving out what is as by default."""
        shown = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        defaults = {
            "stride": (1, 1),
            "dilation": (1, 1),
            "num_heads": None,
            "position": "relative",
            "content": True,
            "border": "mask",
            "shared_tables": True,
            "scale": 1.0,
            "projection_kind": "full",
            "backend": "auto",
        }
        for name, default in defaults.items():
            if getattr(self, name) != default:
                shown += f", {name}={getattr(self, name)!r}"
        return shown if self.projection.bias is None else f"{shown}, bias=True"


def _check_count(name: str, value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ArgumentError(message("LocalAttention2d", f"{name} must be an integer >= 1", repr(value)))
    return value
