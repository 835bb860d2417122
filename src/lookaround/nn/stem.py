"""The first layers of a network: by convolution, or by attention inside small blocks."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lookaround.errors import ArgumentError, ShapeError, closest, message

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
        _check_images("ConvStem", x, self.in_channels)
        out: Tensor = self.pool(self.relu(self.bn(self.conv(x))))
        return out


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
        _check_images("AttentionStem", x, self.in_channels)
        out: Tensor = self.pool(self.relu(self.bn(self._attend(x))))
        return out

    def attention_weights(self, x: Tensor) -> Float[Tensor, "batch blocks_y blocks_x heads queries keys"]:
        """Return where each pixel of a block looks within its block, for pictures."""
        return self._weights(self._cut(x), self._absent(x))

    def place_mixture(self) -> Float[Tensor, "block block mixtures"]:
        """Return p(a, b, ·): how the value maps are mixed at each place of the block; for pictures too."""
        places = self.row_embedding[:, None] + self.column_embedding
        return (places @ self.mixture_embedding.T).softmax(-1)

    def _attend(self, x: Tensor) -> Tensor:
        pixels = self._cut(x)  # batch blocks_y blocks_x places in_channels
        values = self._values(x, pixels).unflatten(-1, (self.num_heads, self.head_dim))
        weights = self._weights(pixels, self._absent(x)).to(values.dtype)
        out = (weights @ values.transpose(-2, -3)).transpose(-2, -3).flatten(-2)
        return self._join(out)[..., : x.shape[-2], : x.shape[-1]]

    def _weights(self, pixels: Tensor, absent: Tensor | None) -> Tensor:
        form = torch.einsum("hdi,hdj->hij", self.query_weight, self.key_weight)
        logits = torch.einsum("byxpi,hij->byxhpj", pixels, form) @ pixels.transpose(-1, -2)[:, :, :, None]
        if absent is not None:
            logits = logits.masked_fill(absent, -torch.inf)
        return logits.softmax(-1)

    def _values(self, x: Tensor, pixels: Tensor) -> Tensor:
        """Compute the value of each pixel: batch blocks_y blocks_x places out_channels."""
        if self.values == "convolution":
            before, after = (self.block_size - 1) // 2, self.block_size // 2
            return self._cut(self.value_conv(F.pad(x, (before, after, before, after))))
        if self.values == "plain":
            return F.linear(pixels, self.value_weight[0])
        maps = torch.einsum("abm,moi->aboi", self.place_mixture(), self.value_weight)
        return torch.einsum("byxpi,poi->byxpo", pixels, maps.flatten(0, 1))

    def _cut(self, x: Tensor) -> Tensor:
        """Cut an image into blocks, zeros beyond its border: batch blocks_y blocks_x places channels."""
        size = self.block_size
        pixels = F.pad(x, (0, -x.shape[-1] % size, 0, -x.shape[-2] % size)).permute(0, 2, 3, 1)
        blocks: Tensor = pixels.unflatten(2, (-1, size)).unflatten(1, (-1, size))
        return blocks.permute(0, 1, 3, 2, 4, 5).flatten(3, 4)

    def _join(self, blocks: Tensor) -> Tensor:
        """Undo `_cut`: batch channels height width, in channels-last memory."""
        pixels: Tensor = blocks.unflatten(3, (self.block_size, self.block_size)).permute(0, 1, 3, 2, 4, 5)
        return pixels.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)

    def _absent(self, x: Tensor) -> Tensor | None:
        """Tell which places of the blocks lie beyond the image's border: 1 blocks_y blocks_x 1 1 places."""
        height, width = x.shape[-2:]
        whole = height % self.block_size == 0 and width % self.block_size == 0
        if whole:
            return None
        present = torch.ones(1, 1, height, width, dtype=torch.bool, device=x.device)
        return ~self._cut(present).flatten(-2)[:, :, :, None, None]

    def extra_repr(self) -> str:
        """Show what the stem was made with."""
        shown = f"{self.in_channels}, {self.out_channels}, num_heads={self.num_heads}"
        return f"{shown}, block_size={self.block_size}, values={self.values!r}, mixtures={self.mixtures}"


def _check_images(where: str, x: Tensor, in_channels: int) -> None:
    if x.dim() != 4 or x.shape[1] != in_channels:
        must = f"x must have the shape (batch, {in_channels}, height, width)"
        raise ShapeError(message(where, must, tuple(x.shape)))
