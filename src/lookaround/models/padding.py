"""Batches of images of different sizes: where the padding is, and layers that do not see it.

Images stand at the top left of their batch, so that every stride-th pixel of a mask is the mask of a map that
was made with this stride: a pixel is padding exactly where no pixel of the image is under it.
"""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lookaround.nn import AttentionStem, ConvStem, LocalAttention2d

Mask = Tensor | None  # batch height width, True for padding; None if there is none


def padding_mask(
    images: Float[Tensor, "batch channels height width"], sizes: Sequence[tuple[int, int]]
) -> Bool[Tensor, "batch height width"] | None:
    """Mark what is no part of the images; None if they fill the whole batch.

    Args:
        images: the batch, each image at its top left.
        sizes: height and width of each image.

    Example:
        >>> padding_mask(torch.zeros(2, 3, 1, 3), [(1, 3), (1, 2)])
        tensor([[[False, False, False]],
        <BLANKLINE>
                [[False, False,  True]]])
    """
    height, width = images.shape[-2:]
    if all(tuple(size) == (height, width) for size in sizes):
        return None
    heights, widths = torch.tensor(sizes, device=images.device).unbind(1)
    rows = torch.arange(height, device=images.device) >= heights[:, None]
    columns = torch.arange(width, device=images.device) >= widths[:, None]
    return rows[:, :, None] | columns[:, None, :]


def shrink_mask(mask: Mask, stride: int | tuple[int, int]) -> Mask:
    """Return the mask of a map with a pixel for each stride x stride pixels of this one."""
    rows, columns = (stride, stride) if isinstance(stride, int) else stride
    return None if mask is None else mask[:, ::rows, ::columns]


def clear_padding(x: Tensor, mask: Mask) -> Tensor:
    """Set padded pixels to zero, as a convolution finds the pixels beyond a border."""
    return x if mask is None else x.masked_fill(mask[:, None], 0)


def apply_spatial(layer: nn.Module, x: Tensor, mask: Mask = None) -> Tensor:
    """Apply a layer that looks at neighbours, so that it sees the images alone.

    Attention leaves padded pixels out; any other layer finds zeros in their place.
    """
    if mask is None:
        out: Tensor = layer(x)
    elif isinstance(layer, LocalAttention2d):
        out = layer(x, mask)
    else:
        out = layer(clear_padding(x, mask))
    return out


def apply_stem(stem: nn.Module, images: Tensor, mask: Mask) -> tuple[Tensor, Mask]:
    """Apply a `ConvStem` or an `AttentionStem`, and return its map with the map's mask.

    The blocks of an attention stem do not overlap: those that hold image and padding see the padding as
    black pixels, in a batch and alone. There are none where sides are multiples of the block.
    """
    if mask is None:
        return stem(images), None
    images = clear_padding(images, mask)
    if isinstance(stem, AttentionStem):
        out = stem(images)
        return out, shrink_mask(mask, _reach(images, out))
    assert isinstance(stem, ConvStem)
    # Pixels are >= 0 behind the ReLU, so that zeros do not change the maximum of a window.
    convolved = stem.relu(stem.bn(stem.conv(images)))
    mask = shrink_mask(mask, _reach(images, convolved))
    convolved = clear_padding(convolved, mask)
    out = stem.pool(convolved)
    return out, shrink_mask(mask, _reach(convolved, out))


def _reach(before: Tensor, after: Tensor) -> tuple[int, int]:
    """Tell the stride between two maps: the power of two by which each side became shorter."""
    height, width = (
        next(2**n for n in itertools.count() if -(-size // 2**n) <= small)
        for size, small in zip(before.shape[-2:], after.shape[-2:], strict=True)
    )
    return height, width
