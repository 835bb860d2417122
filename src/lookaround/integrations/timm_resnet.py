"""Our ResNet with the methods and arguments that timm expects of a model."""

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.classifier import create_classifier
from timm.models import checkpoint_seq, register_notrace_module
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from lookaround.errors import ArgumentError, message
from lookaround.models.resnet import Bottleneck, ResNet
from lookaround.models.variants import configure
from lookaround.nn import AttentionStem, ConvStem, LocalAttention2d

STAGES = ("layer1", "layer2", "layer3", "layer4")
OURS_TO_TIMM = {"in_channels": "in_chans", "drop_path": "drop_path_rate"}

# What looks at shapes and modes before it computes stays in one piece when torch.fx traces a network.
for _module in (AttentionStem, ConvStem, LocalAttention2d, Bottleneck):
    register_notrace_module(_module)


class TimmResNet(ResNet):
    """A `ResNet` as timm makes and uses it; parameters have the same names, so that weights fit both.

    There are four feature maps, one for each stage, and none of the stem, which has the first stage's
    resolution. Where the head is removed (`num_classes=0`), `config.num_classes` is 1 and means nothing.

    Args:
        name: one of `lookaround.list_models(task="classification")`.
        num_classes: size of the last layer; 0 for none.
        in_chans: channels of the images.
        global_pool: "avg", "max", "avgmax" or "catavgmax" over the last map; "" keeps the map.
        drop_rate: probability of dropping a pooled feature while training.
        drop_path_rate: probability of dropping the last block, growing linearly from 0 at the first.
        device: where the parameters are made.
        dtype: what the parameters are made of.
        overrides: any other field of `ResNetConfig`, as for `lookaround.create_model`.

    Raises:
        UnknownNameError: no model or override has this name.
        ArgumentError: a value cannot be used.

    Example:
        >>> model = TimmResNet("sasa_resnet14_small", num_classes=10, width=0.25)
        >>> model.forward_features(torch.randn(1, 3, 32, 32)).shape
        torch.Size([1, 512, 4, 4])
    """

    def __init__(  # timm gives every one of these by name
        self,
        name: str,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **overrides: Any,
    ) -> None:
        for ours, theirs in OURS_TO_TIMM.items():
            if ours in overrides:
                must = f"{ours} must be given by timm's name for it, {theirs}"
                raise ArgumentError(message("timm.create_model", must, f"{ours}={overrides[ours]!r}"))
        classes = {"num_classes": 1 if num_classes == 0 else num_classes}
        timms = {"in_channels": in_chans, "drop_path": drop_path_rate}
        super().__init__(configure(name, **classes, **timms, **overrides))
        self.to(device=device, dtype=dtype)
        self.num_features = self.fc.in_features
        self.global_pool: Any = None
        self.in_chans, self.drop_rate, self.grad_checkpointing = in_chans, drop_rate, False
        self.feature_info = _describe_features(self)
        del self.avgpool  # timm's name for it is global_pool
        self.reset_classifier(num_classes, global_pool)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last stage's map: batch num_features height width."""
        x = self.stem(x)
        for stage in STAGES:
            x = self._run_stage(stage, x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool the last stage's map and classify it.

        Args:
            x: what `forward_features` returns.
            pre_logits: whether to stop before the last layer.
        """
        x = F.dropout(self.global_pool(x), self.drop_rate, self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, or features where the head was removed."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(  # timm gives every one of these by name
        self,
        x: Tensor,
        indices: int | list[int] | tuple[int, ...] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the last map and maps of stages, or those of stages alone.

        Args:
            x: images, batch in_chans height width.
            indices: which stages, from 0; an integer for the last so many; None for all.
            norm: without meaning here, for a stage ends in no norm of its own.
            stop_early: whether to stop after the last stage that was asked for.
            output_fmt: "NCHW", batch channels height width.
            intermediates_only: whether to leave out the last map.

        Raises:
            ArgumentError: another format is asked for.
        """
        if output_fmt != "NCHW":
            must = "output_fmt must be 'NCHW'"
            raise ArgumentError(message("forward_intermediates", must, repr(output_fmt)))
        wanted, last = _chosen(indices)
        x, maps = self.stem(x), []
        for index, stage in enumerate(STAGES[: last + 1] if stop_early else STAGES):
            x = self._run_stage(stage, x)
            if index in wanted:
                maps.append(x)
        return maps if intermediates_only else (x, maps)

    def prune_intermediate_layers(
        self,
        indices: int | list[int] | tuple[int, ...] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Remove the stages after the last that is asked for, and the head; return the stages asked for."""
        wanted, last = _chosen(indices)
        for stage in STAGES[last + 1 :]:
            setattr(self, stage, nn.Sequential())
        if last < len(STAGES) - 1:
            self.num_features = self.feature_info[last]["num_chs"]
        if prune_head or last < len(STAGES) - 1:
            self.reset_classifier(0, "")
        return wanted

    def get_classifier(self, name_only: bool = False) -> nn.Module | str:
        """Return the last layer, or its name."""
        return "fc" if name_only else self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace pooling and last layer.

        Args:
            num_classes: size of the new last layer; 0 for none.
            global_pool: as for the class; None for what is there.
        """
        pool = self.global_pool.pool_type if global_pool is None else global_pool
        like = next(self.parameters())
        self.global_pool, self.fc = create_classifier(
            self.num_features, num_classes, pool_type=pool, device=like.device, dtype=like.dtype
        )
        self.global_pool.train(self.training)
        self.fc.train(self.training)
        self.num_classes = num_classes
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()
        self.config = dataclasses.replace(self.config, num_classes=max(num_classes, 1))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Choose whether training computes blocks anew in the backward pass, to need less memory."""
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Return how parameters are grouped in order of depth: stem, then stages (coarse) or blocks."""
        return {"stem": r"^stem", "blocks": r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"}

    def no_weight_decay(self) -> set[str]:
        """Name the parameters that should not decay besides norms and biases: the tables of positions."""
        return {name for name, _ in self.named_parameters() if "embedding" in name}

    def _run_stage(self, name: str, x: Tensor) -> Tensor:
        stage = getattr(self, name)
        out: Tensor = checkpoint_seq(stage, x) if self.grad_checkpointing else stage(x)
        return out


def _chosen(indices: int | list[int] | tuple[int, ...] | None) -> tuple[list[int], int]:
    """Return which stages are asked for, counted from 0, and the last of them."""
    listed = list(indices) if isinstance(indices, tuple) else indices
    wanted, last = feature_take_indices(len(STAGES), listed)
    return list(wanted), last


def _describe_features(model: ResNet) -> list[dict[str, Any]]:
    """Say of every stage how many channels it puts out and how far it reduces the image."""
    first = 1 if model.config.small else 4
    ends = [getattr(model, stage)[-1] for stage in STAGES]
    return [
        {"num_chs": block.conv3.out_channels, "reduction": first * 2**index, "module": stage}
        for index, (stage, block) in enumerate(zip(STAGES, ends, strict=True))
    ]
