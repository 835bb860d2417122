"""What a model card is written from: the files of a run, and what is known of the data.

Every number of a card comes from `model.json`, `test.json`, `config.yaml` or `environment.json`.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lookaround.models.record import ModelRecord, find_files, read_record
from lookaround.models.variants import DETECTION, VARIANTS, task_of

TITLES = {"digits": "handwritten digits", "fashion_mnist": "Fashion-MNIST", "scenes": "composed scenes"}
DATA = {
    "digits": (
        "[scikit-learn's digits](https://archive.ics.uci.edu/dataset/80/), 1,797 handwritten digits of 8x8 "
        "pixels by E. Alpaydin and C. Kaynak, under CC BY 4.0; a fifth is held out to test"
    ),
    "fashion_mnist": (
        "[Fashion-MNIST](https://github.com/zalandoresearch/fashion-mnist), 70,000 grey pictures of garments "
        "of 28x28 pixels by H. Xiao, K. Rasul and R. Vollgraf, under the MIT licence; 10,000 are to test"
    ),
}
# Figures of `test.json` that a card states: what they are called, by us and by the hub, and how written.
FIGURES = {
    "test_accuracy": ("accuracy", "accuracy", ".2%"),
    "test_accuracy_top5": ("top-5 accuracy", "accuracy", ".2%"),
    "test_map": ("mAP (COCO, overlaps 0.5 to 0.95)", "mean_average_precision", ".3f"),
    "test_map50": ("AP at an overlap of 0.5", "mean_average_precision", ".3f"),
    "test_map75": ("AP at an overlap of 0.75", "mean_average_precision", ".3f"),
}


@dataclass(frozen=True)
class CardFacts:
    """What a card is written from.

    Attributes:
        record: what belongs to the weights.
        settings: `config.yaml` of the run; empty if not known.
        tested: figures of the test images; empty if not known.
        environment: `environment.json` of the run; empty if not known.
        remarks: further sentences about the figures.
    """

    record: ModelRecord
    settings: Mapping[str, Any] = field(default_factory=dict)
    tested: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def dataset(self) -> str | None:
        """The data set's name in the recipe."""
        return self._data.get("dataset")

    @property
    def title(self) -> str:
        """The data set's name in prose."""
        return TITLES.get(str(self.dataset), str(self.dataset))

    @property
    def is_detector(self) -> bool:
        """Whether the network finds boxes."""
        return self.record.name in VARIANTS and task_of(self.record.name) == DETECTION

    @property
    def figures(self) -> dict[str, float]:
        """The figures that a card states, by their name in `test.json`."""
        known = {**self.record.metrics, **self.tested}
        return {name: known[name] for name in FIGURES if _is_finite(known.get(name))}

    @property
    def _data(self) -> Mapping[str, Any]:
        data: Mapping[str, Any] = self.settings.get("data", {})
        return data

    def describe_data(self) -> str | None:
        """Say what the images were, where they come from and under which licence."""
        if self.dataset != "scenes":
            return DATA.get(str(self.dataset))
        source = str((self._data.get("scenes") or {}).get("source"))
        made = "scenes that `lookaround data scenes` composes on textured ground"
        return f"{made}, from {DATA[source]}" if source in DATA else made


def read_card_facts(folder: str | Path) -> CardFacts:
    """Read what the folder of a run, or of `save_model`, says of its network.

    Args:
        folder: or the tag of weights that come with the package.

    Raises:
        CheckpointError: it has no record of a network.
    """
    path = find_files(folder).record.parent
    settings: dict[str, Any] = {}
    if (path / "config.yaml").is_file():
        import yaml

        settings = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8")) or {}
    tested, environment = (_read_json(path / f"{name}.json") for name in ("test", "environment"))
    return CardFacts(read_record(folder), settings, tested, environment)


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value = json.loads(path.read_text(encoding="utf-8"))
    return value if isinstance(value, dict) else {}
