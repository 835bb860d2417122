import pytest

from lookaround.data.detection import DetectionData
from lookaround.tasks.classification import ClassificationTask
from lookaround.tasks.detection import DetectionTask
from lookaround.training.task_kinds import chosen_network, kind_of


@pytest.mark.parametrize(
    ("content", "options", "name"),
    [
        ("model: {model: a}", [], "a"),
        ("model: {model: a}", ["--model.model", "b"], "b"),
        ("model: {model: a}", ["--model.model=c"], "c"),
        ("trainer: {}", [], ""),
        ("model: [unclosed", ["--model.model", "b"], "b"),
        ("model: {model: 3}", [], ""),
        ("- a list", [], ""),
    ],
)
@pytest.mark.parametrize("form", ["--config {}", "--config={}", "-c {}"])
def test_the_last_word_on_the_network_counts(tmp_path, content, options, name, form):
    (tmp_path / "a.yaml").write_text(content)
    words = form.format(tmp_path / "a.yaml").split(" ")
    assert chosen_network(["fit", *words, *options]) == name


def test_a_file_that_is_not_there_is_left_to_lightning(tmp_path):
    assert chosen_network(["fit", "--config", str(tmp_path / "none.yaml")]) == ""
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert chosen_network(["fit", "--config", str(tmp_path / "bytes.yaml")]) == ""


def test_detectors_have_a_task_and_data_of_their_own():
    kind = kind_of("sasa_retinanet_resnet14_small")
    assert (kind.task, kind.data, kind.monitor) == (DetectionTask, DetectionData, "val_map")
    assert kind_of("resnet14_small").task is ClassificationTask
    assert kind_of("no such network").task is ClassificationTask
