"""Files of other kinds: read back they give what the network gives, or are not left behind."""

import pytest

pytest.importorskip("torchvision")

from lookaround.errors import ArgumentError, ExportError, UnknownNameError, UnsupportedCallError
from lookaround.integrations import torch_export
from lookaround.integrations.deployment import Plan, draw_inputs, make_reference
from lookaround.integrations.export import export_model
from networks_to_export import classifier, detector, record

ANY = Plan((20, 24), dynamic=True)


def export(model, path, to, plan, **options):
    return export_model(model, record(model), path, to=to, plan=plan, **options)


def test_a_detector_in_onnx_in_float16(tmp_path) -> None:
    pytest.importorskip("onnxruntime")
    done = export(detector(), tmp_path / "model.onnx", "onnx", Plan((64, 64), dtype="float16"), opset=18)
    assert done.facts["opset"] == 18
    assert done.verified.values > 10
    assert 0 < done.verified.differences["scores"] < 0.02


def test_a_program_that_finds_nothing_says_so(tmp_path) -> None:
    """The graph that is traced takes for granted that some boxes stay; it must serve an empty image too."""
    model, plan = detector(heads="convolution"), Plan((64, 64))
    done = export(model, tmp_path / "model.pt2", "torch-export", plan)
    empty = torch_export.load(done.path, score_threshold=0.9999)
    boxes, scores, labels, counts = empty(draw_inputs(make_reference(model, plan, {}), (1, 64, 64)))
    assert counts.tolist() == [0]
    assert boxes.abs().sum() + scores.sum() == 0
    assert labels.unique().tolist() == [-1]


def test_a_file_that_computes_something_else_is_not_left_behind(tmp_path, monkeypatch) -> None:
    load = torch_export.load
    monkeypatch.setattr(
        torch_export, "load", lambda path: lambda inputs: [2 * out for out in load(path)(inputs)]
    )
    model = classifier("resnet14_small")
    (tmp_path / "model.pt2").write_bytes(b"an older export")
    with pytest.raises(ExportError, match="the export must compute what the network computes"):
        export(model, tmp_path / "model.pt2", "torch-export", Plan((16, 16)))
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]
    assert (tmp_path / "model.pt2").read_bytes() == b"an older export"


@pytest.mark.parametrize(
    ("name", "to", "plan", "options", "problem"),
    [
        ("a.onnx", "onxx", ANY, {}, "the kind of file must be known; got 'onxx'(.|\n)*did you mean 'onnx'"),
        ("a.pt2", "onnx", ANY, {}, r"the file must end in \.onnx; got .*a\.pt2"),
        ("a.pt2", "torch-export", ANY, {"opset": 20}, "opset must be left out, but for ONNX; got 20"),
        ("a.pt2", "torch-export", Plan((8, 20), dynamic=True), {}, r"sides of more than 8 pixels; got \(8"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_for(tmp_path, name, to, plan, options, problem) -> None:
    with pytest.raises((ArgumentError, UnknownNameError), match=problem):
        export(classifier("resnet14_small"), tmp_path / name, to, plan, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("plan", "options", "problem"),
    [
        (Plan((16, 16), dtype="bfloat16"), {}, "in float32 or float16; got portable, bfloat16"),
        (Plan((16, 16), operator="native"), {}, "got native, float32"),
        (Plan((16, 16)), {"opset": 9}, r"opset must be from 18 to \d+; got 9"),
    ],
)  # fmt: skip
def test_what_onnx_cannot_be(tmp_path, plan, options, problem) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(ArgumentError, match=problem):
        export(classifier(), tmp_path / "a.onnx", "onnx", plan, **options)


def test_operators_that_are_not_onnxs_are_an_error() -> None:
    onnx = pytest.importorskip("onnx")
    from lookaround.integrations.onnx import check_operators

    node = onnx.helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")
    graph = onnx.helper.make_graph([node], "g", [], [])
    with pytest.raises(ExportError, match=r"every operator must be one of ONNX's own; got com\.microsoft"):
        check_operators(onnx.helper.make_model(graph))


def test_the_native_operator_says_why_it_cannot(tmp_path) -> None:
    plan = Plan((16, 16), dtype="float16", operator="native")
    with pytest.raises(UnsupportedCallError, match="float16"):
        export(classifier(), tmp_path / "a.pt2", "torch-export", plan)
