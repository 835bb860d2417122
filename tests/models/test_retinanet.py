"""The detector: what goes in and comes out, what it loses, that it learns, and what it refuses."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lookaround.errors import ArgumentError, DtypeError, ShapeError, UnknownNameError
from lookaround.models import create_model, list_models, load_model, save_model
from lookaround.models.retinanet import RetinaNet
from lookaround.nn import LocalAttention2d

TINY = {"num_classes": 3, "width": 0.125, "num_heads": 2, "pyramid_channels": 16}
SMALL = "sasa_retinanet_resnet14_small"
FAMILIES = [SMALL, "sasa_retinanet_resnet14_convstem_small", "retinanet_resnet14_small"]


def make(name: str = SMALL, **overrides: object) -> RetinaNet:
    return create_model(name, **{**TINY, **overrides})


def target(*boxes: tuple[float, float, float, float, int]) -> dict[str, Tensor]:
    rows = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 5)
    return {"boxes": rows[:, :4], "labels": rows[:, 4].long()}


IMAGES = [torch.rand(3, 64, 64), torch.rand(3, 64, 96)]
# One object for the anchors of each level.
TARGETS = [target((4, 4, 22, 20, 0), (24, 20, 60, 56, 2)), target((20, 0, 85, 64, 1))]


@torch.no_grad()
@pytest.mark.parametrize("name", list_models(task="detection"))
def test_every_named_detector_predicts(name: str) -> None:
    model = make(name).eval()
    outputs = model.network(torch.randn(1, 3, 64, 96))
    anchors = model.anchor_generator.num_anchors_per_location()[0]
    assert list(outputs) == ["cls_logits", "bbox_regression"]
    for level, logits, deltas in zip(model.config.levels, *outputs.values(), strict=True):
        pixels = -(-64 // 2**level) * -(-96 // 2**level)
        assert logits.shape == (1, pixels * anchors, 3)
        assert deltas.shape == (1, pixels * anchors, 4)
        assert logits.isfinite().all()
        assert logits.sigmoid().mean() == pytest.approx(0.01, abs=0.005)


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_detections_are_boxes_in_the_image_the_best_first(name: str) -> None:
    model = make(name, score_threshold=0.0, detections_per_image=7).eval()
    images = [torch.rand(3, 40, 64), torch.rand(3, 64, 33)]
    before = [image.clone() for image in images]
    for image, copy, found in zip(images, before, model(images), strict=True):
        assert torch.equal(image, copy)
        height, width = image.shape[1:]
        boxes = found["boxes"]
        assert boxes.shape == (7, 4)
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([width, height, width, height])).all()
        assert found["labels"].dtype == torch.int64
        assert torch.equal(found["scores"], found["scores"].sort(descending=True).values)


def test_nothing_is_found_where_no_score_is_high() -> None:
    found = make(score_threshold=0.9).eval()([torch.rand(3, 32, 32)])
    assert found[0]["boxes"].shape == (0, 4)
    assert found[0]["labels"].shape == found[0]["scores"].shape == (0,)


@pytest.mark.parametrize("overrides", [{}, {"norm": "batch"}, {"norm": "none"}, {"residual": False}])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_learns(name: str, overrides: dict) -> None:
    model = make(name, **overrides).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1)
    losses = model(IMAGES, TARGETS)
    assert sorted(losses) == ["bbox_regression", "classification"]
    assert all(loss.isfinite() and loss > 0 and loss.dim() == 0 for loss in losses.values())
    sum(losses.values()).backward()
    for parameter, value in model.named_parameters():
        assert value.grad is not None, parameter
        assert value.grad.isfinite().all(), parameter
        assert torch.count_nonzero(value.grad) > 0, parameter


@pytest.mark.parametrize("name", FAMILIES)
def test_losses_fall_on_one_batch(name: str) -> None:
    model, losses = make(name).train(), []
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(25):
        loss = sum(model(IMAGES, TARGETS).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_a_batch_without_objects_has_a_loss() -> None:
    losses = make().train()(IMAGES, [target(), target()])
    assert losses["bbox_regression"] == 0
    assert losses["classification"] > 0
    sum(losses.values()).backward()


def test_the_parameters_of_the_losses_count() -> None:
    def losses(**overrides: float) -> dict[str, float]:
        torch.manual_seed(0)
        found = make("retinanet_resnet14_small", **overrides)(IMAGES, TARGETS)
        return {key: value.item() for key, value in found.items()}

    base = losses()
    heavy = losses(box_loss_weight=100.0)
    assert heavy["bbox_regression"] == pytest.approx(2 * base["bbox_regression"])
    assert losses(focal_gamma=0.0)["classification"] > base["classification"]
    assert losses(focal_alpha=0.5)["classification"] != pytest.approx(base["classification"])
    assert losses(box_loss_delta=0.01)["bbox_regression"] < base["bbox_regression"]
    assert losses(foreground_iou=0.9, background_iou=0.9) != base


def test_pyramid_and_heads_attend_or_convolve() -> None:
    for pyramid in ("convolution", "attention"):
        for heads in ("convolution", "attention"):
            model = make(pyramid=pyramid, heads=heads, levels=(3, 4, 5, 6))
            found = [sum(isinstance(m, LocalAttention2d) for m in part.modules()) for part in parts_of(model)]
            assert found == [4, 4 * (pyramid == "attention"), 6 * (heads == "attention")]


def parts_of(model: RetinaNet) -> list[nn.Module]:
    return [model.backbone.body, model.backbone.pyramid, model.head]


def test_options_reach_every_attention_layer() -> None:
    options = {"kernel_size": (3, 5), "num_heads": 4, "content": False, "border": "zeros"}
    model = make(**options, width=0.25, shared_tables=False, backend="reference")
    for layer in (m for m in model.modules() if isinstance(m, LocalAttention2d)):
        assert {name: getattr(layer, name) for name in options} == options
        assert (layer.shared_tables, layer.backend) == (False, "reference")


def test_momentum_reaches_every_batch_norm() -> None:
    model = make(norm="batch", batch_norm_momentum=0.01)
    found = {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)}
    assert found == {0.01}


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_a_detector_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    model = make(name, levels=(3, 4, 5, 6), anchors="torchvision", score_threshold=0.0)
    save_model(model, tmp_path, class_names=["a", "b", "c"])
    again, record = load_model(tmp_path)
    assert isinstance(again, RetinaNet)
    assert (again.config, record.name, again.training) == (model.config, name, False)
    assert record.overrides == json.loads(json.dumps(model.config.overrides()))
    found, expected = again(IMAGES), model.eval()(IMAGES)
    assert all(torch.equal(a[key], b[key]) for a, b in zip(found, expected, strict=True) for key in a)


def test_the_config_makes_the_model_again_by_way_of_json() -> None:
    overrides = {"levels": [4, 5], "depths": [1, 2, 1, 1], "kernel_size": (3, 5), "pyramid": "convolution"}
    with torch.device("meta"):
        model = make(**overrides)
        again = create_model(model.config.name, **json.loads(json.dumps(model.config.overrides())))
    assert again.config == model.config
    assert hash(again.config) == hash(model.config)
    assert model.config.backbone().name == "sasa_resnet14_small"


def test_the_same_seed_makes_the_same_model() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(make().state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ({"pyramid": "conv"}, "pyramid must be one of convolution, attention; got 'conv'"),
        ({"heads": None}, "heads must be one of convolution, attention; got None"),
        ({"norm": "group"}, "norm must be one of batch, layer, none; got 'group'"),
        ({"anchors": "coco"}, "anchors must be one of paper, torchvision; got 'coco'"),
        ({"pyramid_channels": 0}, "pyramid_channels must be an integer >= 1; got 0"),
        ({"head_depth": 1.5}, "head_depth must be an integer >= 1; got 1.5"),
        ({"residual": 1}, "residual must be True or False; got 1"),
        ({"anchor_scale": 0}, "anchor_scale must be a finite number > 0; got 0"),
        ({"box_loss_weight": float("nan")}, "box_loss_weight must be a finite number > 0; got nan"),
        ({"focal_alpha": 1.5}, r"focal_alpha must be in \[0, 1\]; got 1.5"),
        ({"focal_gamma": -1}, "focal_gamma must be a finite number >= 0; got -1"),
        ({"background_iou": 0.7}, r"background_iou must be <= foreground_iou; got \(0.7, 0.5\)"),
        ({"score_threshold": "low"}, r"score_threshold must be in \[0, 1\]; got 'low'"),
        (
            {"levels": (3, 5)},
            r"levels must follow each other, begin between 2 and 5 and hold 5; got \(3, 5\)",
        ),
        ({"levels": [3, 4]}, r"levels must .* hold 5; got \(3, 4\)"),
        ({"levels": (1, 2, 3, 4, 5)}, "levels must .* begin between 2 and 5"),
        ({"levels": (6, 7)}, "levels must .* begin between 2 and 5"),
        ({"levels": ()}, r"levels must .*; got \(\)"),
        ({"levels": 5}, "levels must .*; got 5"),
        ({"levels": (5, 4)}, "levels must follow each other"),
        ({"levels": (4, 5), "small": True}, "levels must .* begin between 0 and 3 and hold 3"),
        ({"pyramid_channels": 17}, r"num_heads must divide out_channels \(17\); got 2"),
        ({"stem": "conv"}, "stem must be one of convolution, attention"),
    ],
)
def test_values_that_cannot_be_used_are_named(override: dict, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        make(**override)


def test_a_wrong_override_names_the_right_ones() -> None:
    with pytest.raises(
        UnknownNameError, match=r"got 'head'\.\nhint: did you mean 'heads'\? Known: .*anchors"
    ):
        make(head="attention")
    with pytest.raises(UnknownNameError, match=r"overrides must be known; got 'heads'"):
        create_model("resnet14_small", heads="attention")


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        ([], ShapeError, "images must hold at least one image; got none"),
        ([torch.zeros(1, 8, 8)], ShapeError, r"shape \(3, height, width\); got \(1, 8, 8\) at index 0"),
        ([torch.zeros(3, 8, 8), torch.zeros(8, 8)], ShapeError, r"got \(8, 8\) at index 1"),
        ([torch.zeros(3, 0, 8)], ShapeError, r"got \(3, 0, 8\)"),
        ([torch.zeros(3, 8, 8, dtype=torch.uint8)], DtypeError, "must be floating-point .* got torch.uint8"),
    ],
)
def test_images_that_cannot_be_used_are_refused(images: list, error: type, words: str) -> None:
    with pytest.raises(error, match=f"RetinaNet: .*{words}"):
        make().eval()(images)


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(
    ("targets", "error", "words"),
    [
        (None, ArgumentError, r"training needs targets, one for each image; got None\.\nhint: call \.eval"),
        ([target()], ArgumentError, "one for each image; got 1 for 2 images"),
        (
            [target(), {"boxes": torch.zeros(0, 4)}],
            ArgumentError,
            r"targets\[1\] must have boxes .*no labels",
        ),
        ([target(), {}], ArgumentError, "got no boxes and no labels"),
        (
            [target(), {"boxes": torch.zeros(4), "labels": torch.zeros(1)}],
            ShapeError,
            r"targets\[1\] must have boxes of shape \(objects, 4\) .* got \(4,\) and \(1,\)",
        ),
        (
            [target((0, 0, 5, 5, 3)), target()],
            ArgumentError,
            r"labels of targets\[0\] must be from 0 to 2; got 3",
        ),
        ([target((0, 0, 5, 5, -1)), target()], ArgumentError, "must be from 0 to 2; got -1"),
        (
            [target((5, 0, 5, 5, 1)), target()],
            ArgumentError,
            r"x1 < x2 and y1 < y2; got \[5.0, 0.0, 5.0, 5.0\]",
        ),
        (
            [target((0, 0, 5, float("inf"), 1)), target()],
            ArgumentError,
            r"boxes of targets\[0\] must be finite",
        ),
        ([target((0, 0, 5, float("nan"), 1)), target()], ArgumentError, "must be finite"),
    ],
)
def test_targets_that_cannot_be_learnt_from_are_refused(targets: list, error: type, words: str) -> None:
    with pytest.raises(error, match=f"RetinaNet: .*{words}"):
        make().train()(IMAGES, targets)


@torch.no_grad()
def test_evaluation_gives_losses_and_detections_of_one_pass() -> None:
    model = make().eval()
    losses, found = model.evaluate(IMAGES, TARGETS)
    for one, other in zip(found, model(IMAGES), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)
    for module in model.modules():
        module.training = module is model  # losses, with the statistics of evaluation
    expected = model(IMAGES, TARGETS)
    assert {name: float(value) for name, value in losses.items()} == {
        name: float(value) for name, value in expected.items()
    }
    model.eval()
    with pytest.raises(ArgumentError, match="training needs targets"):
        model.evaluate(IMAGES, TARGETS[:1])
