"""Images of different sizes in one batch: each is treated as it would be alone."""

import pytest
import torch
from torch import Tensor, nn

from lookaround.models import create_model
from lookaround.models.padding import apply_stem, clear_padding, padding_mask, shrink_mask
from lookaround.models.retinanet import RetinaNet
from lookaround.nn import AttentionStem, ConvStem, LocalAttention2d

SMALL = "sasa_retinanet_resnet14_small"
FORMS = [
    (SMALL, {}),
    (SMALL, {"border": "zeros", "levels": (3, 4, 5, 6, 7), "norm": "layer"}),
    (SMALL, {"pyramid": "convolution", "position": "absolute", "stem_values": "convolution"}),
    (SMALL, {"small": True, "levels": (2, 3, 4, 5), "anchors": "torchvision"}),
    ("sasa_retinanet_resnet14_convstem_small", {"heads": "convolution"}),
    ("retinanet_resnet14_small", {"levels": (3, 4, 5, 6, 7)}),
    ("retinanet_resnet14_small", {"small": True, "levels": (3,)}),
]
IN_BLOCKS = [(64, 96), (128, 32), (96, 128)]  # multiples of 32
ANY_SIZES = [(50, 70), (33, 41), (90, 20)]


def trained_like(name: str, **overrides: object) -> RetinaNet:
    """Make a detector whose norms are no identities and whose predictions differ from place to place."""
    model = create_model(name, num_classes=3, width=0.125, pyramid_channels=16, **overrides).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        if isinstance(module, LocalAttention2d):
            module.reset_parameters()
            module.projection.weight.data[: module.out_channels] *= 6  # looks at few places
    for branch, spread in ((model.head.classes, 1.0), (model.head.boxes, 0.3)):
        nn.init.normal_(branch.predict.weight, std=spread / branch.predict.weight[0].numel() ** 0.5)
        branch.predict.bias.data.zero_()
    return model.eval()


def images_of(sizes: list[tuple[int, int]]) -> list[Tensor]:
    return [torch.randn(3, *size, dtype=torch.float64) for size in sizes]


def assert_same(found: list[dict[str, Tensor]], expected: list[dict[str, Tensor]]) -> None:
    for mine, theirs in zip(found, expected, strict=True):
        assert len(mine["boxes"]) > 10
        assert mine["scores"].std() > 1e-4
        for key in theirs:
            torch.testing.assert_close(mine[key], theirs[key], rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("sizes", [IN_BLOCKS, ANY_SIZES], ids=["multiples of 32", "any"])
@pytest.mark.parametrize(("name", "overrides"), FORMS)
def test_detections_in_a_batch_are_those_alone(name: str, overrides: dict, sizes: list) -> None:
    model, images = trained_like(name, **overrides), images_of(sizes)
    assert_same(model(images), [model([image])[0] for image in images])


@torch.no_grad()
@pytest.mark.parametrize("name", [SMALL, "retinanet_resnet14_small"])
def test_what_the_padding_holds_does_not_matter(name: str) -> None:
    model = trained_like(name)
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    mask = padding_mask(images, [(64, 64), (32, 96)])
    outputs = model.network(images, mask)
    changed = model.network(images.masked_fill(mask[:, None], 1e3), mask)
    for key, levels in outputs.items():
        for level, before, after in zip(model.config.levels, levels, changed[key], strict=True):
            here = ~shrink_mask(mask, 2**level).flatten(1)
            here = here.repeat_interleave(before.shape[1] // here.shape[1], 1)
            torch.testing.assert_close(before[here], after[here])


@torch.no_grad()
def test_without_the_mask_they_would_differ() -> None:
    """The test above can fail: attention does see the padding where nothing tells it apart."""
    model, images = trained_like(SMALL), torch.randn(1, 3, 64, 96, dtype=torch.float64)
    alone = model.network(images[..., :64])["cls_logits"][0]
    padded = model.network(nn.functional.pad(images[..., :64], (0, 32)))["cls_logits"][0]
    anchors = model.anchor_generator.num_anchors_per_location()[0]
    here = padded.unflatten(1, (8, 12, anchors))[:, :, :8].flatten(1, 3)
    assert not torch.allclose(alone, here, atol=1e-3)


@pytest.mark.parametrize("name", [SMALL, "retinanet_resnet14_small"])
def test_losses_of_a_batch_leave_the_padding_out(name: str) -> None:
    """Two images give the mean of their losses, weighted by the anchors that hold an object."""
    model, images = trained_like(name, norm="layer"), images_of([(64, 64), (64, 128)])
    boxes = torch.tensor([[4.0, 6.0, 40.0, 44.0]])
    targets = [{"boxes": boxes, "labels": torch.tensor([label])} for label in (1, 2)]
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    alone = [model([image], [target]) for image, target in zip(images, targets, strict=True)]
    together = model(images, targets)
    for key, loss in together.items():
        low, high = sorted(losses[key].item() for losses in alone)
        assert low <= loss.item() <= high
    # The wide image alone, padded to a square: its losses stay.
    padded = model([images[1], torch.randn(3, 128, 32, dtype=torch.float64)], [targets[1], empty()])
    square = model([images[1]], [targets[1]])
    torch.testing.assert_close(padded["bbox_regression"], square["bbox_regression"])


def empty() -> dict[str, Tensor]:
    return {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}


def test_no_gradient_reaches_the_padding() -> None:
    model = trained_like(SMALL)
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64, requires_grad=True)
    mask = padding_mask(images, [(64, 64), (64, 96)])
    logits = model.network(images, mask)["cls_logits"][0]
    anchors = model.anchor_generator.num_anchors_per_location()[0]
    logits.unflatten(1, (8, 12, anchors))[0, :, :8].sum().backward()
    assert images.grad.isfinite().all()
    assert images.grad[0, ..., :64].abs().sum() > 0
    assert images.grad[0, ..., 64:].abs().sum() == 0
    assert images.grad[1].abs().sum() == 0


def test_a_full_batch_has_no_mask() -> None:
    assert padding_mask(torch.zeros(2, 3, 5, 7), [(5, 7), (5, 7)]) is None
    assert shrink_mask(None, 4) is None
    x = torch.randn(1, 2, 3, 3)
    assert clear_padding(x, None) is x


@pytest.mark.parametrize("stride", [1, 2, 4, 32])
def test_a_smaller_mask_marks_pixels_over_padding_alone(stride: int) -> None:
    mask = padding_mask(torch.zeros(1, 1, 64, 96), [(33, 41)])
    blocks = mask.unflatten(2, (-1, stride)).unflatten(1, (-1, stride))
    assert torch.equal(shrink_mask(mask, stride), blocks.all(4).all(2))


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 20), (30, 17), (1, 5)])
@pytest.mark.parametrize(
    "stem", [ConvStem(), ConvStem(kernel_size=3, stride=1, pool=1), AttentionStem(), AttentionStem(pool=1)]
)
def test_stems_give_a_padded_image_what_it_has_alone(stem: nn.Module, size: tuple[int, int]) -> None:
    if isinstance(stem, AttentionStem):
        size = tuple(-(-side // 4) * 4 for side in size)  # whole blocks
    stem = stem.eval()
    nn.init.constant_(stem.bn.bias, 0.5)  # zeros do not stay zeros
    image = torch.randn(1, 3, *size)
    padded = torch.randn(1, 3, 48, 64)
    padded[:, :, : size[0], : size[1]] = image
    mask = padding_mask(padded, [size])
    out, left = apply_stem(stem, padded, mask)
    alone = stem(image)
    height, width = alone.shape[-2:]
    torch.testing.assert_close(out[..., :height, :width], alone)
    expected = torch.ones_like(left)
    expected[:, :height, :width] = False
    assert torch.equal(left, expected)
