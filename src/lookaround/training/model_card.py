"""A model card: what a network is, what it was trained on and how, what it reaches, under which licence.

What is not known is left out. The head of the card is YAML as the Hugging Face hub reads it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lookaround.models.variants import VARIANTS, configure
from lookaround.training.card_facts import FIGURES, CardFacts

LICENCE = "apache-2.0"
PAPER = "https://arxiv.org/abs/1906.05909"
# Settings that say where and how fast, not what was learnt.
NOT_OF_THE_RECIPE = {"root", "num_workers", "verify", "download", "backbone"}


def write_card(facts: CardFacts) -> str:
    """Write a card in Markdown."""
    record = facts.record
    title = f"{record.name}{f', {facts.title}' if facts.dataset is not None else ''}"
    parts = [_front_matter(facts), f"# {title}", _introduction(facts), _table(facts)]
    parts += [" ".join(facts.remarks)] if facts.remarks else []
    if facts.settings:
        parts += ["## Recipe", _provenance(facts), f"```yaml\n{_recipe(facts.settings)}```"]
    parts += ["## Use", _usage(facts), "## Limits", _limits(facts), "## Licence", _licence(facts)]
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: CardFacts) -> str:
    """Write the head that the hub reads; JSON values are YAML."""
    task = "object-detection" if facts.is_detector else "image-classification"
    values: dict[str, Any] = {
        "license": LICENCE,
        "library_name": "lookaround",
        "pipeline_tag": task,
        "tags": ["lookaround", "self-attention", *([] if facts.is_detector else ["timm"])],
    }
    if facts.figures and facts.dataset is not None:
        metrics = [
            {"type": FIGURES[name][1], "name": FIGURES[name][0], "value": value}
            for name, value in facts.figures.items()
        ]
        measured = {
            "task": {"type": task},
            "dataset": {"type": facts.dataset, "name": facts.title, "split": "test"},
            "metrics": metrics,
        }
        values["model-index"] = [{"name": facts.record.name, "results": [measured]}]
    lines = [f"{key}: {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(["---", *lines, "---"])


def _introduction(facts: CardFacts) -> str:
    names = facts.record.class_names
    what = "A detector: boxes, classes and scores" if facts.is_detector else "A classifier"
    classes = (
        f" for {len(names)} classes: {', '.join(names[:20])}{', …' if len(names) > 20 else ''}"
        if names
        else ""
    )
    built = "stand-alone self-attention" if facts.record.name.startswith("sasa_") else "convolutions"
    return f"{what}{classes}. Built of {built} ([paper]({PAPER})) by the library lookaround."


def _table(facts: CardFacts) -> str:
    record = facts.record
    variant = VARIANTS[record.name]
    chosen = configure(record.name, **record.overrides).overrides()
    changed = {key: value for key, value in chosen.items() if value != variant.overrides()[key]}
    options = ", ".join(f"{key}={value!r}" for key, value in changed.items())
    rows = {"network": f"`create_model({', '.join(filter(None, [repr(record.name), options]))})`"}
    size, channels = (record.preprocessing.get(key) for key in ("image_size", "in_channels"))
    if size is not None:
        side = "at most" if facts.is_detector else "square,"
        rows["images"] = f"{side} {size} pixels a side, {'grey' if channels == 1 else 'colour'}"
    described = facts.describe_data()
    if described is not None:
        rows["data"] = described
    for name, value in facts.figures.items():
        rows[f"{FIGURES[name][0]}, test images"] = format(value, FIGURES[name][2])
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())])


def _provenance(facts: CardFacts) -> str:
    """Say on what the training ran, for how long."""
    environment = facts.environment
    parts = [f"Trained by `lookaround fit` as {facts.settings.get('name')}"]
    if environment:
        cpu, gpus = environment["cpu"], environment["gpus"]
        machine = gpus[0]["name"] if gpus else f"{cpu['model']}, {_count(cpu['threads'], 'thread')}"
        length = f"{_count(environment['epochs'], 'epoch')} in {environment['duration_seconds']:.0f} seconds"
        parts.append(f"{length} on {machine}")
        versions = environment["versions"]
        parts.append(f"torch {versions['torch']}, commit {str(environment['commit'])[:12]}")
    return "; ".join(parts) + ". What it was told:"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _recipe(settings: Mapping[str, Any]) -> str:
    import yaml

    trainer = settings.get("trainer", {})
    kept = {
        "seed_everything": settings.get("seed_everything"),
        "trainer": {key: trainer[key] for key in ("max_epochs", "precision") if trainer.get(key) is not None},
        **{part: _without_places(settings.get(part, {})) for part in ("model", "data")},
    }
    return str(yaml.safe_dump(kept, sort_keys=False))


def _without_places(part: Mapping[str, Any]) -> dict[str, Any]:
    cleaned: dict[str, Any] = {}
    for key, value in part.items():
        if key not in NOT_OF_THE_RECIPE and value is not None:
            cleaned[key] = _without_places(value) if isinstance(value, Mapping) else value
    if part.get("backbone") is not None:
        cleaned["backbone"] = Path(str(part["backbone"])).name  # begun with these weights
    return cleaned


def _usage(facts: CardFacts) -> str:
    lines = ["```python", "from lookaround.models import load_model", ""]
    lines += ['model, record = load_model("FOLDER")  # the folder of this file', "```"]
    option = " --out found" if facts.is_detector else ""
    lines += ["", "```bash", f"lookaround predict --weights FOLDER{option} photo.png", "```"]
    return "\n".join(lines)


def _limits(facts: CardFacts) -> str:
    small = "Small, to learn and to test with. " if facts.describe_data() is not None else ""
    if facts.is_detector:
        return f"{small}It finds objects like those that it was trained on, in images like those."
    return (
        f"{small}It knows images like those that it was trained on; whatever it is shown, it names a class."
    )


def _licence(facts: CardFacts) -> str:
    data = " The data keep theirs, see above." if facts.describe_data() is not None else ""
    return f"Code and weights: Apache-2.0.{data}"
