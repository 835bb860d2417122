"""Our networks in the form of the Hugging Face hub: config.json, model.safetensors and a model card.

```
from lookaround.integrations import hub

hub.save_pretrained(model, "folder")
model, record = hub.from_pretrained("folder")
hub.push_to_hub(model, "user/name")
model, record = hub.from_pretrained("user/name")
```

A folder needs no network and no package of the hub's. `load_model`, `lookaround predict --weights` and, for a
classifier, `timm.create_model("local-dir:folder")` read it too. Nothing in it can run code.
"""

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lookaround.errors import ArgumentError, CheckpointError, message
from lookaround.integrations.timm_format import timm_arguments, timm_description
from lookaround.models.checkpoint import load_model, misfits
from lookaround.models.record import (
    FORMAT,
    HUB_ENTRY,
    HUB_RECORD_NAME,
    HUB_WEIGHTS_NAME,
    ModelRecord,
    mistyped,
    shipped_tags,
)
from lookaround.models.retinanet_config import RetinaNetConfig
from lookaround.models.variants import Model, create_model
from lookaround.training.card_facts import CardFacts
from lookaround.training.files import replacing, write_json, write_text
from lookaround.training.model_card import write_card

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD_NAME = "README.md"


def save_pretrained(
    model: Model, folder: str | Path, *, record: ModelRecord | None = None, card: str | None = None
) -> Path:
    """Write a model into a folder as the hub has it.

    Args:
        model: the network; it is not changed.
        folder: made if need be; what it has of these three files is replaced.
        record: what belongs to the weights, as `load_model` gives it: preprocessing, class names, figures.
        card: the text of the model card; None: one is written from the record.

    Returns:
        The folder.

    Raises:
        ArgumentError: the model has other layers than its name says (no head, or a form for inference), or
            the record has not the types of `ModelRecord`; nothing is written.
    """
    from safetensors.torch import save

    described = _describe(model, record)
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    target = Path(folder)
    with replacing(target / HUB_WEIGHTS_NAME) as temporary:
        temporary.write_bytes(save(tensors, metadata={"format": "pt"}))
    write_json(target / HUB_RECORD_NAME, _configuration(model, described))
    write_text(target / CARD_NAME, write_card(CardFacts(described)) if card is None else card)
    return target


def from_pretrained(
    source: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | None = None,
    local_files_only: bool = False,
) -> tuple[Model, ModelRecord]:
    """Read a model, ready to predict, from a folder or from the hub.

    Args:
        source: a folder, or else a repository of the hub, "user/name".
        revision: branch, tag or commit of a repository.
        cache_dir: where the hub's package keeps what it downloads.
        token: for a private repository.
        local_files_only: whether to take what is kept and ask no server, as under HF_HUB_OFFLINE=1, which
            must be set before the hub's package is imported.

    Raises:
        CheckpointError: there is no such folder or repository, or its files are not those of a model of ours.
    """
    if Path(source).exists() or "/" not in str(source) or str(source) in shipped_tags():
        return load_model(source)
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(
            str(source),
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
            allow_patterns=[HUB_RECORD_NAME, HUB_WEIGHTS_NAME],
        )
    except _refusals() as error:
        must = "source must be a folder, or a repository of the Hugging Face hub that can be read"
        hint = "check name, network and token; what was downloaded once is read with local_files_only=True."
        got = f"{str(source)!r} ({_first_line(error)})"
        raise CheckpointError(message("from_pretrained", must, got, hint=hint)) from error
    return load_model(folder)


def push_to_hub(
    model: Model,
    repo_id: str,
    *,
    record: ModelRecord | None = None,
    card: str | None = None,
    private: bool | None = None,
    api: "HfApi | None" = None,
) -> str:
    """Upload a model to the hub, in one commit; the repository is made if need be.

    Args:
        model: the network.
        repo_id: "user/name".
        record: as for `save_pretrained`.
        card: as for `save_pretrained`; the repository's card is replaced.
        private: whether a repository that is made is private; None: as the owner's settings say.
        api: with token and address; None: those that `hf auth login` left.

    Returns:
        Address of the commit.

    Raises:
        ArgumentError: as for `save_pretrained`; nothing is uploaded.
        CheckpointError: the hub does not take it.
    """
    if api is None:
        from huggingface_hub import HfApi

        api = HfApi(library_name="lookaround")
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder, record=record, card=card)
        said = f"Add {model.config.name}"
        try:
            made = api.create_repo(repo_id=repo_id, private=private, exist_ok=True)
            commit = api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message=said)
        except _refusals() as error:
            must = "the Hugging Face hub must take the model"
            hint = "check name and network, and log in by `hf auth login`."
            got = f"{repo_id!r} ({_first_line(error)})"
            raise CheckpointError(message("push_to_hub", must, got, hint=hint)) from error
    return str(commit.commit_url)


def _refusals() -> tuple[type[Exception], ...]:
    """Return what the hub's package raises of a name, a token, a network or a server."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    return HfHubHTTPError, HFValidationError, OSError


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _describe(model: Model, record: ModelRecord | None) -> ModelRecord:
    """Return the record with the model's own name and options, if a model can be made of it again."""
    given = ModelRecord(model.config.name) if record is None else record
    described = dataclasses.replace(given, name=model.config.name, overrides=model.config.overrides())
    wrong = mistyped(described)
    if not wrong:
        with torch.device("meta"):
            again = create_model(described.name, **described.overrides)
        wrong = misfits(again, model.state_dict())[:5]
    if wrong:
        must = f"the model must have the layers of {model.config.name}, and a record as load_model gives it"
        hint = "save the network before its head is taken off, and before it is fused."
        raise ArgumentError(message("save_pretrained", must, "others", lines=wrong, hint=hint))
    return described


def _configuration(model: Model, record: ModelRecord) -> dict[str, Any]:
    """Return config.json: our record, and for a classifier what timm reads."""
    ours = {"library_name": "lookaround", HUB_ENTRY: {"format": FORMAT, **dataclasses.asdict(record)}}
    config = model.config
    if isinstance(config, RetinaNetConfig):
        return ours
    description = timm_description(config, record.preprocessing, record.class_names)
    names = {"label_names": description.pop("label_names")} if record.class_names else {}
    return {
        "architecture": description.pop("architecture"),
        "num_classes": config.num_classes,
        "num_features": model.fc.in_features,
        "global_pool": "avg",
        **names,
        "model_args": timm_arguments(config),
        "pretrained_cfg": description,
        **ours,
    }
