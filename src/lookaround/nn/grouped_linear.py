"""A linear map of each head's own channels."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class GroupedLinear(nn.Module):
    """Maps each group of channels by weights of its own, for several maps (query, key, value) at once.

    Group n of every map is made from group n of the input alone, which needs a share of `1 / groups` of the
    parameters of a full map. It runs as the full map whose other weights are zero, so it saves no time.

    Args:
        in_features: channels of the input, a multiple of `groups`.
        out_features: channels of all maps together.
        groups: groups of each map, which are the heads of an attention.
        maps: maps that stand one after another in the output.
        bias: whether a bias is added.
        device: where the parameters are made.
        dtype: what the parameters are made of.

    Parameters:
        | name | shape | initial distribution |
        |---|---|---|
        | weight | out_features, in_features / groups | N(0, groups / in_features) |
        | bias (if `bias`) | out_features | 0 |

    Source:
        Ramachandran et al. 2019, section 3.1, whose text describes one such map for each head; the
        parameters that the paper prints are those of full maps.

    Example:
        >>> sum(p.numel() for p in GroupedLinear(16, 48, groups=4, maps=3).parameters())
        192
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        groups: int,
        maps: int = 1,
        *,
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.groups, self.maps = groups, maps
        shape = (out_features, in_features // groups)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        if bias:
            self.bias: nn.Parameter | None = nn.Parameter(
                torch.empty(out_features, device=device, dtype=dtype)
            )
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew from their initial distributions."""
        with torch.no_grad():
            self.weight.normal_(std=1 / math.sqrt(self.weight.shape[1]))
            if self.bias is not None:
                self.bias.zero_()

    def full_weight(self) -> Float[Tensor, "out_features in_features"]:
        """Return the weight of the full map, zero between different groups."""
        own = self.weight.view(self.maps, self.groups, -1, self.weight.shape[1])
        same = torch.eye(self.groups, device=own.device, dtype=own.dtype)
        return torch.einsum("mgoi,gh->mgohi", own, same).reshape(self.out_features, self.in_features)

    def forward(self, x: Float[Tensor, "*batch in_features"]) -> Float[Tensor, "*batch out_features"]:
        """Return all maps, one after another."""
        return nn.functional.linear(x, self.full_weight(), self.bias)

    def extra_repr(self) -> str:
        """Show what the map was made with."""
        shown = f"{self.in_features}, {self.out_features}, groups={self.groups}, maps={self.maps}"
        return shown if self.bias is None else f"{shown}, bias=True"
