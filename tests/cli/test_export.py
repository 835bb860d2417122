"""`lookaround export`: what is written, what is said of it, and what is refused."""

import json

import pytest
import torch

pytest.importorskip("torchvision")

from lookaround.cli.main import main
from lookaround.integrations.export import load_exported
from lookaround.models import save_model
from networks_to_export import CLASSES, PREPROCESSING, classifier, detector


@pytest.fixture
def weights(tmp_path):
    folder = tmp_path / "run"
    save_model(classifier("resnet14_small"), folder, preprocessing=PREPROCESSING, class_names=CLASSES)
    return folder


def call(weights, *words):
    return main(["export", "--weights", str(weights), *map(str, words)])


def test_a_classifier_becomes_onnx_in_the_run_folder(weights, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    assert call(weights, "--to", "onnx", "--half", "--pixels", "--repeats", "1", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["path"] == str(weights / "model.onnx")
    assert (said["dtype"], said["takes_pixels"], said["sizes"]) == ("float16", True, [[1, 20, 20]])
    assert 0 < said["differences"]["probabilities"] < said["tolerance"]
    assert said["seconds"]["export"] > 0 < said["seconds"]["pytorch"]
    session = onnxruntime.InferenceSession(said["path"])
    pixels = torch.randint(256, (1, 3, 20, 20), dtype=torch.uint8)
    _, probabilities = session.run(None, {"images": pixels.numpy()})
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert json.loads(session.get_modelmeta().custom_metadata_map["class_names"]) == CLASSES


def test_the_lines_tell_differences_and_speed(weights, tmp_path, capsys):
    out = tmp_path / "program.pt2"
    assert call(weights, "--to", "torch-export", "--out", out, "--image-size", 16, 24, "--batch-size", 2) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{out}  ")
    assert lines[1] == "takes     images: 2 x 16x24, float32 inside"
    assert lines[2] == "returns   logits, probabilities"
    assert lines[3].startswith("verified  6 values against PyTorch in float32; largest difference: logits ")
    assert lines[4].startswith("speed     exported program ")
    assert lines[4].endswith(f"ms (median of 7, 2 x 16x24, {torch.get_num_threads()} threads)")
    assert load_exported(out, "torch-export")((torch.randn(2, 3, 16, 24),))[1].shape == (2, 3)


def test_a_detectors_images_are_as_large_as_their_batch_must_be(tmp_path, capsys):
    folder = tmp_path / "run"
    save_model(detector(heads="convolution"), folder, preprocessing=PREPROCESSING | {"image_size": 50})
    assert call(folder, "--to", "torch-export", "--repeats", 0, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["sizes"] == [[1, 64, 64]]
    assert said["inputs"] == ["images", "image_sizes"]
    assert said["other_operators"] == ["torchvision.nms.default"]
    assert "seconds" not in said


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--to", "onnx", "--half", "--dtype", "float32"], "--half must be left out beside another --dtype"),
        (["--to", "onnx", "--repeats", "-1"], "--repeats must be at least 0; got -1."),
        (["--to", "onnx", "--image-size", "1", "2", "3"], "--image-size must be one number, or height"),
        (["--to", "onnx", "--out", "a.txt"], "the file must end in .onnx; got a.txt."),
        (["--to", "onnx", "--batch-size", "0"], "image_size and batch_size must be whole numbers >= 1"),
        (["--to", "tflite"], "invalid choice: 'tflite'"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_line(weights, words, problem, capsys):
    assert call(weights, *words) == 2
    error = capsys.readouterr().err
    assert problem in error
    assert error.count("\n") == 1


def test_the_size_must_be_known(tmp_path, capsys):
    save_model(classifier("resnet14_small"), tmp_path)
    assert call(tmp_path, "--to", "torch-export") == 2
    assert "--image-size must be given for weights whose record does not tell it" in capsys.readouterr().err
