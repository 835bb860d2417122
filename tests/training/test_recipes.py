import pytest
import yaml

from lookaround.errors import ConfigError
from lookaround.models import create_model
from lookaround.tasks.optimization import OptimizerConfig
from lookaround.training.recipes import FOLDER, find_recipe, list_recipes, resolve_recipes


def test_the_recipes_of_the_issue_are_there():
    kinds = ["baseline", "convstem", "full_attention"]
    named = {f"{data}_{kind}" for data in ("digits", "fashion_mnist") for kind in kinds}
    imagenet = {"imagenet_resnet50", "imagenet_sasa_resnet50_convstem", "imagenet_sasa_resnet50"}
    assert named | imagenet <= set(list_recipes())


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_says_what_it_is_and_can_be_built(name):
    text = (FOLDER / f"{name}.yaml").read_text()
    head = text.split("seed_everything")[0]
    for word in ("# Source:", "# Expected:", "# Cost:", f"# Command: lookaround fit --config {name}"):
        assert word in head
    recipe = yaml.safe_load(text)
    assert OptimizerConfig(**recipe["model"]["optimizer"])
    assert create_model(recipe["model"]["model"], **recipe["model"]["overrides"])


@pytest.mark.parametrize("data", ["digits", "fashion_mnist"])
def test_the_three_networks_of_a_data_set_differ_in_kind_alone(data):
    recipes = [
        yaml.safe_load((FOLDER / f"{data}_{kind}.yaml").read_text())
        for kind in ("baseline", "convstem", "full_attention")
    ]
    networks = [create_model(r["model"].pop("model"), **r["model"]["overrides"]) for r in recipes]
    assert len({(network.config.depths, network.config.width) for network in networks}) == 1
    for recipe in recipes:
        recipe["model"].pop("overrides")
    assert recipes[0] == recipes[1] == recipes[2]


@pytest.mark.parametrize("name", [name for name in list_recipes() if name.startswith("imagenet")])
def test_imagenet_is_trained_as_the_paper_says(name):
    recipe = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    optimizer = OptimizerConfig(**recipe["model"]["optimizer"])
    assert recipe["trainer"]["max_epochs"] == 130
    assert recipe["data"]["batch_size"] * recipe["trainer"]["accumulate_grad_batches"] == 4096
    assert (optimizer.algorithm, optimizer.learning_rate, optimizer.reference_batch_size) == (
        "sgd",
        1.6,
        4096,
    )
    assert (optimizer.warmup_epochs, optimizer.ema_decay) == (10, 0.9999)
    assert recipe["model"]["overrides"] == {"batch_norm_momentum": 1e-4}
    assert recipe["model"]["label_smoothing"] == 0.1
    assert (recipe["data"]["image_size"], recipe["data"]["augment"]) == (224, "paper")


def test_a_file_is_taken_as_it_is(tmp_path):
    path = tmp_path / "mine.yaml"
    path.touch()
    assert find_recipe(str(path)) == path


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(
        ConfigError, match=r"(?s)got 'digits_baselin'.*did you mean 'digits_baseline'.*imagenet_"
    ):
        find_recipe("digits_baselin")


@pytest.mark.parametrize("form", [["--config", "NAME"], ["--config=NAME"], ["-c", "NAME"]])
def test_names_are_replaced_in_every_form(form):
    given = [word.replace("NAME", "digits_baseline") for word in form]
    resolved, stem = resolve_recipes(["--x", "1", *given, "--y"])
    assert resolved[0:2] == ["--x", "1"]
    assert resolved[-2].endswith("recipes/digits_baseline.yaml")
    assert stem == "digits_baseline"
