"""The first layers of a network: by convolution, or by attention inside small blocks."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lookaround import ops
from lookaround.errors import ArgumentError, ShapeError, closest, message
from lookaround.nn.batch_norm import normalize_then
from lookaround.nn.pooled_blocks import attend_normalize_pool
from lookaround.nn.tracing import as_one_node, is_traced
from lookaround.ops.block_attention import absent_places, block_weights, crop, cut_blocks, join_blocks

STEM_VALUES = ("spatially_aware", "plain", "convolution")


class ConvStem(nn.Module):
    """Convolution, batch norm, ReLU and max-pooling, as in every ResNet.

    Args:
        in_channels: channels of the images.
        out_channels: channels of the output.
        kernel_size: of the convolution; odd.
        stride: of the convolution.
        pool: stride of the 3x3 max-pooling; 1 leaves it out.

    Raises:
        ArgumentError: a value that cannot be used.

    Source:
        He et al. 2015, table 1. `kernel_size=3, stride=1, pool=1` keeps the size of small images.

    Example:
        >>> ConvStem()(torch.randn(1, 3, 64, 64)).shape
        torch.Size([1, 64, 16, 16])
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 64,
        kernel_size: int = 7,
        stride: int = 2,
        pool: int = 2,
    ) -> None:
        super().__init__()
        sizes = (in_channels, out_channels, kernel_size, stride, pool)
        if min(sizes) < 1 or kernel_size % 2 == 0:
            must = "sizes must be >= 1 and kernel_size must be odd"
            raise ArgumentError(message("ConvStem", must, f"kernel_size={kernel_size}, sizes {sizes}"))
        self.in_channels = in_channels
        self.conv: nn.Module = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False
        )
        self.bn: nn.Module = nn.BatchNorm2d(out_channels)
        self.relu: nn.Module = nn.ReLU(inplace=True)
        self.pool: nn.Module = nn.MaxPool2d(3, pool, padding=1) if pool > 1 else nn.Identity()
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Float[Tensor, "batch in_channels height width"]) -> Tensor:
        """Return batch out_channels ceil(height / (stride·pool)) ceil(width / (stride·pool)).

        Raises:
            ShapeError: x has not the four dimensions or the channels that the stem takes.
        """
        if is_traced(x):
            return as_one_node(self, x)
        _check_images("ConvStem", x, self.in_channels)
        return normalize_then(self.bn, self.relu, self.pool, self.conv(x))


class AttentionStem(nn.Module):
    """Attention inside each block of 4 x 4 pixels, then batch norm, ReLU and max-pooling.

    A block's 16 pixels attend to each other with logits q·k. The values may know where in the block their
    pixel is: `v_ab = (Σ_m p(a, b, m) W_m) x_ab` with `p(a, b, ·) = softmax_m((row_a + column_b)·ν_m)`. Sizes
    that are no multiple of the block leave out the pixels that do not exist.

    No query or key is ever computed: with few input channels, q·k is a bilinear form `x_iᵀ (W_Qᵀ W_K) x_j` of
    the pixels themselves, and the mixture of value maps is one matrix per place in the block.

    Args:
        in_channels: channels of the images.
        out_channels: channels of the output; a multiple of `num_heads`.
        num_heads: heads.
        block_size: pixels a side of a block.
        values: "spatially_aware", "plain" (one value map for all places), or "convolution" (a convolution
            as large as the block, across block borders).
        mixtures: the number m of value maps that are mixed; for "spatially_aware" alone.
        pool: size and stride of the max-pooling; 1 keeps the resolution.

    Parameters:
        | name | shape | initial distribution |
        |---|---|---|
        | query_weight | heads, head_dim, in | N(0, 1 / (in · head_dim)) |
        | key_weight | heads, head_dim, in | N(0, 1 / in) |
        | value_weight (not "convolution") | mixtures (or 1), out, in | N(0, 1 / in) |
        | row_embedding, column_embedding ("spatially_aware") | block_size, head_dim | N(0, 1) |
        | mixture_embedding ("spatially_aware") | mixtures, head_dim | N(0, 1 / (2 · head_dim)) |
        | value_conv.weight ("convolution") | out, in, block_size, block_size | N(0, 1 / fan-in) |

    Raises:
        ArgumentError: a value that cannot be used.

    Source:
        Ramachandran et al. 2019, section 3.2 and appendix; Table 7 compares the three kinds of values.

    Departures from the paper:
        ReLU after the batch norm, 4 mixtures, embeddings as long as a head, the size of the convolution: it
        does not say.

    Example:
        >>> AttentionStem()(torch.randn(1, 3, 64, 64)).shape
        torch.Size([1, 64, 16, 16])
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 64,
        num_heads: int = 4,
        block_size: int = 4,
        values: str = "spatially_aware",
        mixtures: int = 4,
        pool: int = 4,
    ) -> None:
        super().__init__()
        if values not in STEM_VALUES:
            hint = closest(str(values), STEM_VALUES)
            raise ArgumentError(message("AttentionStem", "values must be known", repr(values), hint=hint))
        counts = (in_channels, out_channels, num_heads, block_size, mixtures, pool)
        if min(counts) < 1 or out_channels % num_heads != 0:
            must = "sizes must be >= 1 and num_heads must divide out_channels"
            got = f"num_heads={num_heads}, out_channels={out_channels}, sizes {counts}"
            raise ArgumentError(message("AttentionStem", must, got))
        self.in_channels, self.out_channels, self.num_heads = in_channels, out_channels, num_heads
        self.block_size, self.values, self.mixtures = block_size, values, mixtures
        self.head_dim = out_channels // num_heads
        self.query_weight = nn.Parameter(torch.empty(num_heads, self.head_dim, in_channels))
        self.key_weight = nn.Parameter(torch.empty(num_heads, self.head_dim, in_channels))
        if values == "convolution":
            self.value_conv = nn.Conv2d(in_channels, out_channels, block_size, bias=False)
        else:
            maps = mixtures if values == "spatially_aware" else 1
            self.value_weight = nn.Parameter(torch.empty(maps, out_channels, in_channels))
        if values == "spatially_aware":
            self.row_embedding = nn.Parameter(torch.empty(block_size, self.head_dim))
            self.column_embedding = nn.Parameter(torch.empty(block_size, self.head_dim))
            self.mixture_embedding = nn.Parameter(torch.empty(mixtures, self.head_dim))
        self.bn: nn.Module = nn.BatchNorm2d(out_channels)
        self.relu: nn.Module = nn.ReLU(inplace=True)
        self.pool: nn.Module = nn.MaxPool2d(pool, ceil_mode=True) if pool > 1 else nn.Identity()
        self.pools_inside = (
            False  # a fused stem takes the largest output of each block without writing the others
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters of the attention anew from their initial distributions."""
        inputs = self.in_channels
        nn.init.normal_(self.query_weight, std=1 / math.sqrt(inputs * self.head_dim))
        nn.init.normal_(self.key_weight, std=1 / math.sqrt(inputs))
        if self.values == "convolution":
            nn.init.normal_(self.value_conv.weight, std=1 / math.sqrt(inputs * self.block_size**2))
        else:
            nn.init.normal_(self.value_weight, std=1 / math.sqrt(inputs))
        if self.values == "spatially_aware":
            nn.init.normal_(self.row_embedding)
            nn.init.normal_(self.column_embedding)
            nn.init.normal_(self.mixture_embedding, std=1 / math.sqrt(2 * self.head_dim))

    def forward(self, x: Float[Tensor, "batch in_channels height width"]) -> Tensor:
        """Return batch out_channels ceil(height / pool) ceil(width / pool).

        Raises:
            ShapeError: x has not the four dimensions or the channels that the stem takes.
        """
        if is_traced(x):
            return as_one_node(self, x)
        _check_images("AttentionStem", x, self.in_channels)
        if self.values != "convolution" and isinstance(self.pool, nn.MaxPool2d):
            arguments = (x.permute(0, 2, 3, 1), self._form(), self._value_maps(), self.block_size)
            pooled = attend_normalize_pool(self.bn, self.relu, self.pool, *arguments)
            if pooled is not None:
                return pooled
        return normalize_then(self.bn, self.relu, self.pool, self._attend(x))

    def attention_weights(self, x: Tensor) -> Float[Tensor, "batch blocks_y blocks_x heads queries keys"]:
        """Return where each pixel of a block looks within its block, for pictures."""
        pixels = x.permute(0, 2, 3, 1)
        blocks, absent = cut_blocks(pixels, self.block_size), absent_places(pixels, self.block_size)
        return block_weights(blocks, self._form(), absent)

    def place_mixture(self) -> Float[Tensor, "block block mixtures"]:
        """Return p(a, b, ·): how the value maps are mixed at each place of the block; for pictures too."""
        places = self.row_embedding[:, None] + self.column_embedding
        return (places @ self.mixture_embedding.T).softmax(-1)

    def _attend(self, x: Tensor) -> Tensor:
        if self.values == "convolution":
            return self._attend_to_convolved(x)
        pixels = x.permute(0, 2, 3, 1)
        form, maps = self._form(), self._value_maps()
        out = ops.block_attention(pixels, form, maps, block_size=self.block_size, pooled=self.pools_inside)
        return out.permute(0, 3, 1, 2)  # in channels-last memory

    def _attend_to_convolved(self, x: Tensor) -> Tensor:
        size = self.block_size
        before, after = (size - 1) // 2, size // 2
        convolved = self.value_conv(F.pad(x, (before, after, before, after))).permute(0, 2, 3, 1)
        values = cut_blocks(convolved, size).unflatten(-1, (self.num_heads, self.head_dim))
        weights = self.attention_weights(x).to(values.dtype)
        out = (weights @ values.transpose(-2, -3)).transpose(-2, -3).flatten(-2)
        return crop(join_blocks(out, size), x.shape[-2], x.shape[-1]).permute(0, 3, 1, 2)

    def _form(self) -> Tensor:
        """Fold the maps of queries and keys: heads in_channels in_channels."""
        return torch.einsum("hdi,hdj->hij", self.query_weight, self.key_weight)

    def _value_maps(self) -> Tensor:
        """Mix the value maps for each place of a block: places heads head_dim in_channels."""
        if self.values == "plain":
            maps = self.value_weight.expand(self.block_size**2, -1, -1)
        else:
            maps = torch.einsum("abm,moi->aboi", self.place_mixture(), self.value_weight).flatten(0, 1)
        split: Tensor = maps.unflatten(1, (self.num_heads, self.head_dim))
        return split

    def extra_repr(self) -> str:
        """Show what the stem was made with."""
        shown = f"{self.in_channels}, {self.out_channels}, num_heads={self.num_heads}"
        return f"{shown}, block_size={self.block_size}, values={self.values!r}, mixtures={self.mixtures}"


def _check_images(where: str, x: Tensor, in_channels: int) -> None:
    if x.dim() != 4 or x.shape[1] != in_channels:
        must = f"x must have the shape (batch, {in_channels}, height, width)"
        raise ShapeError(message(where, must, tuple(x.shape)))
