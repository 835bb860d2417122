"""Exported files serve sizes that were never traced; here, because the shape hook knows no symbols."""

import json
import zipfile

import pytest
import torch

pytest.importorskip("torchvision")

from backends_under_test import skip_unless_runs
from lookaround.integrations import torch_export
from lookaround.integrations.deployment import Plan, draw_inputs, make_reference
from lookaround.integrations.export import export_model, load_exported
from networks_to_export import CLASSES, PREPROCESSING, classifier, detector, record
from strategies import Case

ANY = Plan((20, 24), dynamic=True)


def export(model, path, to, plan):
    return export_model(model, record(model), path, to=to, plan=plan)


def test_a_classifier_in_onnx_serves_every_size(tmp_path) -> None:
    onnx = pytest.importorskip("onnx")
    from lookaround.integrations.onnx import read_metadata

    model = classifier()
    done = export(model, tmp_path / "model.onnx", "onnx", ANY)
    file = onnx.load(done.path)
    assert {node.domain for node in file.graph.node} == {""}
    assert {entry.domain for entry in file.opset_import} == {""}
    assert len(file.functions) == 0
    assert len(file.graph.node) == done.facts["nodes"] < 300
    assert [size.dim_param for size in file.graph.input[0].type.tensor_type.shape.dim] == [
        "batch",
        "",
        "rows",
        "columns",
    ]
    assert file.graph.output[1].type.tensor_type.shape.dim[0].dim_param == "batch"
    said = read_metadata(done.path)
    assert said["class_names"] == CLASSES
    assert said["preprocessing"] == PREPROCESSING
    assert (said["task"], said["model"], said["takes_pixels"]) == (
        "classification",
        "sasa_resnet14_small",
        False,
    )
    run = load_exported(done.path, "onnx")
    with torch.no_grad():
        for shape in ((1, 3, 8, 8), (4, 3, 17, 50)):
            images = torch.randn(shape)
            torch.testing.assert_close(run((images,))[0], model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_detector_in_onnx_serves_every_size(tmp_path) -> None:
    onnx = pytest.importorskip("onnx")
    model, plan = detector(), Plan((64, 96), dynamic=True)
    done = export(model, tmp_path / "model.onnx", "onnx", plan)
    assert done.outputs == ("boxes", "scores", "labels", "counts")
    assert done.verified.values > 100
    assert done.verified.differences["boxes"] < 0.01
    assert {node.domain for node in onnx.load(done.path).graph.node} == {""}
    inputs = draw_inputs(make_reference(model, plan, {}), (2, 96, 96))
    boxes, scores, labels, counts = load_exported(done.path, "onnx")(inputs)
    pairs = zip(inputs[0], inputs[1].tolist(), strict=True)
    alone = model([image[:, :height, :width] for image, (height, width) in pairs])
    for image, expected in enumerate(alone):
        found = int(counts[image])
        assert found == len(expected["scores"]) > 0
        torch.testing.assert_close(scores[image, :found], expected["scores"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(boxes[image, :found], expected["boxes"], rtol=1e-4, atol=1e-2)
        assert labels[image, :found].equal(expected["labels"])


@pytest.mark.parametrize("operator", ["native", "portable"])
def test_a_program_of_torch_export_serves_every_size(tmp_path, operator) -> None:
    if operator == "native":
        skip_unless_runs("cpu", Case())
    plan = Plan((20, 24), dynamic=True, operator=operator)
    done = export(classifier(), tmp_path / "model.pt2", "torch-export", plan)
    native = {"lookaround.local_attention_forward.default"}
    assert set(done.facts["other_operators"]) == (native if operator == "native" else set())
    assert done.verified.sizes == [(1, 20, 24), (3, 25, 26), (2, 40, 29)]
    with zipfile.ZipFile(done.path) as file:
        name = next(name for name in file.namelist() if name.endswith(torch_export.METADATA))
        assert json.loads(file.read(name))["class_names"] == CLASSES
