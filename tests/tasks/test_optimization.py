import itertools

import pytest
import torch
from torch import nn

from lookaround.errors import ArgumentError
from lookaround.models import create_model
from lookaround.tasks.optimization import (
    OptimizerConfig,
    build_optimizer,
    build_schedule,
    parameter_groups,
    scaled_learning_rate,
    warmup_cosine,
)


@pytest.mark.parametrize(
    ("setting", "must"),
    [
        ({"algorithm": "adam"}, "algorithm must be 'sgd' or 'adamw'; got adam"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0; got 0.0"),
        ({"reference_batch_size": 0}, "reference_batch_size must be at least 1; got 0"),
        ({"momentum": 1.0}, "momentum must be within 0 and 1; got 1.0"),
        ({"weight_decay": -1.0}, "weight_decay must not be negative; got -1.0"),
        ({"warmup_epochs": -1.0}, "warmup_epochs must not be negative; got -1.0"),
        ({"ema_decay": 1.0}, "ema_decay must be between 0 and 1, or null; got 1.0"),
    ],
)
def test_values_that_cannot_train_are_refused(setting, must, shapes_unchecked):
    with pytest.raises(ArgumentError, match=must):
        OptimizerConfig(**setting)


def test_the_learning_rate_follows_the_global_batch():
    config = OptimizerConfig(learning_rate=1.6, reference_batch_size=4096)
    assert scaled_learning_rate(config, 4096) == 1.6
    assert scaled_learning_rate(config, 256) == pytest.approx(0.1)


def test_the_schedule_rises_linearly_then_falls_to_zero():
    shares = [warmup_cosine(step, 10, 100) for step in range(101)]
    assert shares[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert all(later <= earlier for earlier, later in itertools.pairwise(shares[10:]))
    assert shares[55] == pytest.approx(0.5)
    assert shares[100] == 0


def test_a_schedule_without_warm_up_begins_at_the_top():
    assert warmup_cosine(0, 0, 10) == 1


def test_norms_biases_and_tables_do_not_decay():
    network = create_model("sasa_resnet14_small", width=0.25, num_classes=3, in_channels=1)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    decayed, kept = parameter_groups(network, OptimizerConfig(weight_decay=0.1))
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    kept_names = {names[id(parameter)] for parameter in kept["params"]}
    assert "fc.bias" in kept_names
    assert any(name.endswith("row_embedding") for name in kept_names)
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert not any("embedding" in names[id(parameter)] for parameter in decayed["params"])
    assert len(decayed["params"]) + len(kept["params"]) == len(names)


def test_everything_decays_on_request():
    groups = parameter_groups(nn.Linear(2, 2), OptimizerConfig(decay_all=True))
    assert len(groups) == 1
    assert len(groups[0]["params"]) == 2


def test_the_optimizers():
    layer = nn.Linear(2, 2)
    sgd = build_optimizer(layer, OptimizerConfig(learning_rate=0.1, reference_batch_size=10), 20)
    assert isinstance(sgd, torch.optim.SGD)
    assert sgd.defaults["nesterov"]
    assert sgd.param_groups[0]["lr"] == 0.2
    assert isinstance(build_optimizer(layer, OptimizerConfig("adamw"), 1), torch.optim.AdamW)
    assert not build_optimizer(layer, OptimizerConfig(momentum=0.0), 1).defaults["nesterov"]


def test_a_warm_up_as_long_as_the_training_is_pointed_out():
    optimizer = build_optimizer(nn.Linear(2, 2), OptimizerConfig(), 256)
    with pytest.warns(UserWarning, match=r"warm-up \(10 epochs\) is as long as the training \(3\)"):
        schedule = build_schedule(optimizer, OptimizerConfig(warmup_epochs=10), 30, 10)
    assert schedule.get_last_lr()[0] == pytest.approx(0.1 / 30)


def test_the_shape_of_the_schedule_is_no_part_of_its_state():
    optimizer = build_optimizer(nn.Linear(2, 2), OptimizerConfig(), 256)
    schedule = build_schedule(optimizer, OptimizerConfig(), 10, 10)
    assert schedule.state_dict()["lr_lambdas"] == [None, None]
