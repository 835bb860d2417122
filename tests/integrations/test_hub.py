"""Models in the hub's form: written, read by every reader, uploaded to a hub that only pretends."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
import yaml

import lookaround.integrations.timm  # noqa: F401  # so that timm knows the names
from lookaround.cli.main import main
from lookaround.errors import ArgumentError, CheckpointError
from lookaround.integrations import hub
from lookaround.models import (
    ModelRecord,
    create_model,
    fuse,
    list_pretrained,
    load_backbone,
    load_model,
    save_model,
)
from lookaround.models.record import SHIPPED, find_files, read_record

TINY = {"width": 0.125, "num_heads": 2, "num_classes": 3, "in_channels": 1}
DETECTOR = "sasa_retinanet_resnet14_convstem_small"
FILES = ["README.md", "config.json", "model.safetensors"]
PREPARED = {"image_size": 8, "in_channels": 1, "mean": [0.25], "std": [0.5], "crop_fraction": 0.5}
RECORD = ModelRecord("resnet50", {}, PREPARED, ["a", "b", "c"], {"test_accuracy": 0.875}, [4, 5, 6])


def make(name: str = "sasa_resnet14_small", **options: Any) -> Any:
    extra = {"pyramid_channels": 8, "head_depth": 1} if "retinanet" in name else {}
    return create_model(name, **TINY | extra | options).eval()


class PretendedHub:
    """Takes what is uploaded, as `huggingface_hub.HfApi` does."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.made: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.said = ""

    def create_repo(self, *, repo_id: str, private: bool | None, exist_ok: bool) -> SimpleNamespace:
        if self.error is not None:
            raise self.error
        self.made = {"repo_id": repo_id, "private": private, "exist_ok": exist_ok}
        return SimpleNamespace(repo_id=f"me/{repo_id}")

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> SimpleNamespace:
        self.files = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
        self.said = commit_message
        return SimpleNamespace(commit_url=f"https://hub.example/{repo_id}/commit/1")


@pytest.mark.parametrize("name", ["resnet14_small", "sasa_resnet14_small", DETECTOR])
def test_a_model_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    model = make(name, kernel_size=(3, 5))
    assert hub.save_pretrained(model, tmp_path / "out", record=RECORD) == tmp_path / "out"
    assert sorted(os.listdir(tmp_path / "out")) == FILES
    again, record = hub.from_pretrained(tmp_path / "out")
    assert not again.training
    assert again.config == model.config
    assert (record.name, record.preprocessing, record.class_names) == (name, PREPARED, ["a", "b", "c"])
    assert (record.metrics, record.category_ids) == ({"test_accuracy": 0.875}, [4, 5, 6])
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in again.state_dict().items())


@pytest.mark.parametrize("inside", ["", "config.json", "model.safetensors"])
def test_every_reader_of_ours_reads_it(inside: str, tmp_path: Path) -> None:
    hub.save_pretrained(make(), tmp_path)
    assert load_model(tmp_path / inside)[0].config.name == "sasa_resnet14_small"
    assert read_record(tmp_path / inside).name == "sasa_resnet14_small"
    load_backbone(make("sasa_resnet14_small"), tmp_path / inside)
    with pytest.raises(CheckpointError, match="must have the backbone of sasa_resnet14_small"):
        load_backbone(make("sasa_resnet14_small", border="zeros"), tmp_path / inside)


def test_a_run_comes_before_the_hubs_form(tmp_path: Path) -> None:
    hub.save_pretrained(make(), tmp_path)
    save_model(make("resnet14_small"), tmp_path)
    assert load_model(tmp_path)[0].config.name == "resnet14_small"
    assert find_files(tmp_path / "config.json").weights.name == "model.safetensors"


@pytest.mark.parametrize("name", ["resnet14_small", "sasa_resnet14_convstem_small", "sasa_resnet14_small"])
def test_timm_reads_a_classifier(name: str, tmp_path: Path) -> None:
    model = make(name, attention_stages=[4])
    hub.save_pretrained(model, tmp_path, record=RECORD)
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    images = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(theirs(images), model(images))
    assert theirs.config.overrides() == model.config.overrides()
    cfg = timm.data.resolve_data_config(model=theirs)
    assert (cfg["input_size"], list(cfg["mean"]), list(cfg["std"])) == ((1, 8, 8), [0.25], [0.5])
    assert (cfg["crop_pct"], cfg["interpolation"]) == (0.5, "bilinear")
    assert theirs.pretrained_cfg["label_names"] == ["a", "b", "c"]
    other = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=7, in_chans=3).eval()
    assert other(images.expand(-1, 3, -1, -1)).shape == (2, 7)
    features = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, features_only=True)
    assert features.feature_info.channels() == [32, 64, 128, 256]


def test_a_network_made_by_timm_is_saved_like_ours(tmp_path: Path) -> None:
    theirs = timm.create_model("sasa_resnet14_small", num_classes=3, width=0.125, num_heads=2).eval()
    hub.save_pretrained(theirs, tmp_path)
    ours, _ = load_model(tmp_path)
    images = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(ours(images), theirs(images))


def test_timms_own_form_holds_all_that_timm_needs(tmp_path: Path) -> None:
    theirs = timm.create_model("sasa_resnet14_small", num_classes=3, width=0.125, num_heads=2).eval()
    timm.models.save_for_hf(theirs, str(tmp_path), safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    images = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(again(images), theirs(images))
    with pytest.raises(
        CheckpointError, match=r"must be a record as save_pretrained writes it; .*'lookaround'"
    ):
        load_model(tmp_path)


def test_the_card_is_written_or_given(tmp_path: Path) -> None:
    hub.save_pretrained(make(), tmp_path, record=RECORD)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert yaml.safe_load(card.split("---\n")[1])["library_name"] == "lookaround"
    assert "| accuracy, test images | 87.50% |" in card
    hub.save_pretrained(make(), tmp_path, card="mine\n")
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "mine\n"


def without_head(name: str) -> Any:
    return timm.create_model(name, num_classes=0, width=0.125, num_heads=2)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda: fuse(make("resnet14_small")), r"missing: |not in the model: "),
        (lambda: without_head("sasa_resnet14_small"), r"not in the model: fc\.weight|missing: fc\.weight"),
    ],
)
def test_a_model_that_could_not_be_read_is_not_written(broken: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(
        ArgumentError, match=rf"save_pretrained: the model must have the layers(.|\n)*({words})"
    ):
        hub.save_pretrained(broken(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("shapes_unchecked")
def test_a_record_that_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"class_names: expected a list of strings; actual: \[1\]"):
        hub.save_pretrained(make(), tmp_path / "out", record=ModelRecord("resnet26", class_names=[1]))
    assert not (tmp_path / "out").exists()


def test_a_model_is_uploaded_whole() -> None:
    api, model = PretendedHub(), make()
    address = hub.push_to_hub(model, "digits", record=RECORD, private=True, api=api)
    assert address == "https://hub.example/me/digits/commit/1"
    assert api.made == {"repo_id": "digits", "private": True, "exist_ok": True}
    assert api.said == "Add sasa_resnet14_small"
    assert sorted(api.files) == FILES
    assert json.loads(api.files["config.json"])["lookaround"]["class_names"] == ["a", "b", "c"]


def test_nothing_is_uploaded_that_cannot_be_read() -> None:
    api = PretendedHub()
    with pytest.raises(ArgumentError, match="the model must have the layers"):
        hub.push_to_hub(without_head("sasa_resnet14_small"), "digits", api=api)
    assert (api.made, api.files) == ({}, {})


def test_a_hub_that_refuses_is_an_error() -> None:
    api = PretendedHub(ConnectionError("no network\nat all"))
    with pytest.raises(
        CheckpointError, match=r"hub must take the model; got 'digits' \(no network\)\.\nhint"
    ):
        hub.push_to_hub(make(), "digits", api=api)


def test_a_repository_is_downloaded_once_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    hub.save_pretrained(make(), tmp_path / "kept")
    asked: list[Any] = []

    def download(repo: str, **options: Any) -> str:
        asked.append((repo, options))
        return str(tmp_path / "kept")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    model, _ = hub.from_pretrained("user/name", revision="v1", token="t")
    assert model.config.name == "sasa_resnet14_small"
    ((repo, options),) = asked
    assert (repo, options["revision"], options["token"]) == ("user/name", "v1", "t")
    assert options["allow_patterns"] == ["config.json", "model.safetensors"]


def test_a_repository_that_is_not_kept_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"source must be a folder, or a repository .*; got 'user/none' \("
    ):
        hub.from_pretrained("user/none", cache_dir=tmp_path, local_files_only=True)
    with pytest.raises(CheckpointError, match="got 'not/a/repository'"):
        hub.from_pretrained("not/a/repository", cache_dir=tmp_path, local_files_only=True)
    with pytest.raises(CheckpointError, match=r"the folder must hold model\.json"):
        hub.from_pretrained("nothing")


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"lookaround": {"name": "resnet26"}}'])
def test_a_foreign_configuration_is_refused(content: str, tmp_path: Path) -> None:
    hub.save_pretrained(make(), tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json must be a record as save_pretrained writes it"):
        load_model(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    save_model(make(), tmp_path / "run", preprocessing=PREPARED, class_names=["a", "b", "c"])
    (tmp_path / "run" / "config.yaml").write_text(
        yaml.safe_dump({"name": "x", "data": {"dataset": "digits"}})
    )
    (tmp_path / "run" / "test.json").write_text(json.dumps({"test_accuracy": 0.625}))
    return tmp_path / "run"


def test_the_command_lists_what_comes_with_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hub", "list"]) == 0
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in lines] == [list(pair) for pair in list_pretrained().items()]
    accuracy = read_record("digits").metrics["test_accuracy"]
    assert ["digits", "sasa_resnet14_small"] in [line[:2] for line in lines]
    assert any(line[2].startswith(f"accuracy {accuracy:.2%}, top-5") for line in lines)


def test_the_command_saves_a_run_with_its_card(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hub", "save", str(run), "--out", str(run / "out")]) == 0
    assert capsys.readouterr().out == f"{run / 'out'}\n"
    assert "| accuracy, test images | 62.50% |" in (run / "out" / "README.md").read_text()
    assert load_model(run / "out")[1].metrics == {"test_accuracy": 0.625}
    (run / "out" / "README.md").write_text("edited")
    assert main(["hub", "save", str(run / "out"), "--out", str(run / "again")]) == 0
    assert (run / "again" / "README.md").read_text() == "edited"


def test_the_command_pushes_a_run(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import huggingface_hub

    api = PretendedHub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda **options: api)
    assert main(["hub", "push", str(run), "--repo", "digits", "--private"]) == 0
    assert capsys.readouterr().out == "https://hub.example/me/digits/commit/1\n"
    assert api.made["private"] is True
    assert main(["hub", "push", str(run), "--repo", "digits"]) == 0
    assert api.made["private"] is None
    assert b"62.50%" in api.files["README.md"]


def test_the_command_packs_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    pretended = SimpleNamespace(ship_weights=lambda *given: asked.append(given) or given[2])
    monkeypatch.setitem(sys.modules, "lookaround.studies.shipped_weights", pretended)
    assert main(["hub", "pack", "runs/x", "--tag", "t", "--into", str(tmp_path)]) == 0
    assert main(["hub", "pack", "runs/x", "--tag", "t"]) == 0
    assert asked == [(Path("runs/x"), "t", tmp_path), (Path("runs/x"), "t", SHIPPED)]
    assert capsys.readouterr().out == f"{tmp_path}\n{SHIPPED}\n"
