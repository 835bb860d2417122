"""Options of the networks beyond the paper's tables: where blocks attend, scale, grouped projections."""

import pytest
import torch

from lookaround import create_model
from lookaround.errors import ArgumentError
from lookaround.models.costs import model_costs
from lookaround.nn import LocalAttention2d


def attending(blocks: str) -> list[list[bool]]:
    model = create_model("sasa_resnet50_convstem_small", width=0.125, num_heads=2, attention_blocks=blocks)
    stages = (model.layer1, model.layer2, model.layer3, model.layer4)
    return [[isinstance(block.spatial, LocalAttention2d) for block in stage] for stage in stages]


@pytest.mark.parametrize(
    ("blocks", "first_stage", "second_stage"),
    [
        ("all", [True] * 3, [True] * 4),
        ("first", [True, False, False], [True, False, False, False]),
        ("last", [False, False, True], [False, False, False, True]),
        ("alternate", [False, True, False], [False, True, False, True]),
    ],
)
def test_some_blocks_of_a_stage_attend(blocks: str, first_stage: list, second_stage: list) -> None:
    assert attending(blocks)[:2] == [first_stage, second_stage]


def test_blocks_of_other_stages_convolve() -> None:
    options = {"width": 0.125, "num_heads": 2, "attention_stages": (2,), "attention_blocks": "first"}
    model = create_model("sasa_resnet26_convstem_small", **options)
    kinds = [isinstance(block.spatial, LocalAttention2d) for block in (*model.layer1, *model.layer2)]
    assert kinds == [False, True, False]


def test_the_scale_moves_between_initialisation_and_equation() -> None:
    def layer(scale: str) -> LocalAttention2d:
        torch.manual_seed(0)
        model = create_model("sasa_resnet14_small", width=0.25, num_heads=4, scale=scale)
        return model.layer1[0].spatial

    inside, outside = layer("initialization"), layer("equation")
    assert (inside.scale, outside.scale) == (1.0, pytest.approx(0.5))  # 4 channels a head
    x = torch.randn(1, 16, 5, 5)
    torch.testing.assert_close(inside(x), outside(x))  # they begin as the same function


def test_grouped_projections_have_the_parameters_of_their_groups() -> None:
    options = {"width": 0.25, "num_heads": 4, "attention_stages": (1,)}
    full, grouped = (
        model_costs(create_model("sasa_resnet14_convstem_small", projection=kind, **options), 28)
        for kind in ("full", "grouped")
    )
    channels = 16
    assert full.parameters - grouped.parameters == 3 * channels * channels * 3 // 4
    assert full.executed_flops == grouped.executed_flops
    assert full.paper_flops - grouped.paper_flops == 2 * 28 * 28 * 3 * channels * channels * 3 // 4


@pytest.mark.parametrize("field", ["scale", "projection", "attention_blocks"])
def test_an_unknown_choice_is_refused(field: str) -> None:
    with pytest.raises(ArgumentError, match=f"{field} must be one of .*; got 'nothing'"):
        create_model("sasa_resnet14_small", **{field: "nothing"})
