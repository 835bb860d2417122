"""The graphs that are exported, before anything is exported."""

import pytest
import torch

pytest.importorskip("torchvision")

from lookaround.errors import ArgumentError
from lookaround.integrations.deployment import Plan, draw_inputs, make_graph, make_reference
from lookaround.integrations.verification import verify
from lookaround.nn import LocalAttention2d
from networks_to_export import PREPROCESSING, classifier, detector

EVERY_SIZE = Plan((64, 96), batch_size=2, dynamic=True)


@pytest.mark.parametrize("name", ["sasa_resnet14_small", "resnet14_small", "sasa_resnet14_convstem_small"])
def test_the_graph_of_a_classifier_gives_its_logits_and_probabilities(name: str) -> None:
    model, plan = classifier(name), Plan((20, 24), dynamic=True)
    graph = make_graph(model, plan, {})
    images = torch.randn(2, 3, 20, 24)
    with torch.no_grad():
        logits, probabilities = graph(images)
        torch.testing.assert_close(logits, model(images), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(probabilities, logits.softmax(1))
    verified = verify(lambda inputs: graph(*inputs), make_reference(model, plan, {}), plan)
    assert verified.sizes == [(1, 20, 24), (3, 25, 26), (2, 40, 29)]
    assert verified.values == 6 * 3
    assert all(0 <= value < 1e-4 for value in verified.differences.values())


@pytest.mark.parametrize("threshold", [0.0, 0.05])
def test_the_graph_of_a_detector_finds_what_the_detector_finds(threshold: float) -> None:
    model = detector(levels=[4, 5])
    graph, reference = make_graph(model, EVERY_SIZE, {}), make_reference(model, EVERY_SIZE, {})
    graph.score_threshold.fill_(threshold)
    reference.model.score_thresh = threshold
    with torch.no_grad():
        verified = verify(lambda inputs: graph(*inputs), reference, EVERY_SIZE)
    assert verified.values > 50
    assert verified.differences["scores"] < 1e-5


def test_nothing_found_is_zeros() -> None:
    graph = make_graph(detector(score_threshold=0.9999), EVERY_SIZE, {})
    boxes, scores, labels, counts = graph(*draw_inputs(graph, (2, 64, 96)))
    assert counts.tolist() == [0, 0]
    assert boxes.abs().max() == 0
    assert scores.abs().max() == 0
    assert labels.unique().tolist() == [-1]
    assert boxes.shape == (2, 100, 4)


def test_pixels_are_normalised_in_the_graph() -> None:
    model, plan = classifier(), Plan((16, 16), takes_pixels=True)
    pixels = torch.randint(256, (1, 3, 16, 16), dtype=torch.uint8)
    mean, std = (torch.tensor(PREPROCESSING[name])[:, None, None] for name in ("mean", "std"))
    with torch.no_grad():
        found = make_graph(model, plan, PREPROCESSING)(pixels)[0]
        torch.testing.assert_close(found, model((pixels / 255 - mean) / std), rtol=1e-4, atol=1e-5)


def test_results_are_float32_whatever_is_inside() -> None:
    graph = make_graph(classifier(), Plan((16, 16), dtype="float16"), {})
    assert {parameter.dtype for parameter in graph.model.parameters()} == {torch.float16}
    with torch.no_grad():
        assert graph(torch.randn(1, 3, 16, 16))[1].dtype == torch.float32


def test_the_network_stays_as_it_is() -> None:
    model = detector()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    make_graph(model, Plan((32, 32), dtype="float16"), {})
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert {m.backend for m in model.modules() if isinstance(m, LocalAttention2d)} == {"auto"}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"image_size": (0, 8)}, r"image_size and batch_size must be whole numbers >= 1; got \(0, 8\) and 1"),
        ({"image_size": (8, 8), "batch_size": 0}, r"must be whole numbers >= 1"),
        ({"image_size": (8, 8), "dtype": "int8"}, "dtype must be one of float32, float16, .*got 'int8'"),
        ({"image_size": (8, 8), "operator": "fast"}, "operator must be one of native, portable; got 'fast'"),
    ],
)  # fmt: skip
def test_plans_that_cannot_be_are_refused(arguments, problem) -> None:
    with pytest.raises(ArgumentError, match=problem):
        Plan(**arguments)


def test_networks_in_training_mode_are_refused() -> None:
    with pytest.raises(ArgumentError, match="the network must be in eval mode; got training mode"):
        make_graph(classifier().train(), Plan((16, 16)), {})


def test_pixels_need_mean_and_std() -> None:
    with pytest.raises(ArgumentError, match=r"preprocessing must have mean and std; got \['mean'\]"):
        make_graph(classifier(), Plan((16, 16), takes_pixels=True), {"mean": [0.5]})


def test_sides_of_a_detectors_images_are_multiples() -> None:
    with pytest.raises(ArgumentError, match=r"must be multiples of 32; got \(60, 96\)(.|\n)*try 64 96"):
        make_graph(detector(), Plan((60, 96)), {})
