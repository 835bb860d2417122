"""Rows and seeds become trainings, each only once: what is trained how, under which name."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lookaround.errors import ArgumentError, LookaroundError, message
from lookaround.models import create_model
from lookaround.models.costs import model_costs
from lookaround.models.variants import CLASSIFICATION, DETECTION
from lookaround.studies.paper_images import has_test_images
from lookaround.studies.paper_networks import Network, network_at, readable
from lookaround.studies.paper_plan import Experiment, PlanRow
from lookaround.studies.paper_scale import Training, find_scale

SPLIT_SEED = 0  # of the held-out images: the same for every seed of weights and order
DIGEST_LENGTH = 8
_SIZES = {"fashion_mnist": 28, "digits": 8, "folder": 224, "scenes": 128, "coco": 640}


@dataclass(frozen=True)
class Data:
    """Where images come from.

    Attributes:
        kind: "fashion_mnist", "digits" or "folder"; for detectors "scenes" or "coco".
        root: the folder; None: the set's own choice.
    """

    kind: str
    root: str | None = None


@dataclass(frozen=True)
class Request:
    """What is to be run.

    Attributes:
        scale: how large and how long.
        data: for classifiers.
        detection_data: for detectors.
        seeds: how many seeds: 0, 1, ….
        limits: fields of `Training` that are set for every run, to try things out.
        backbones: whether the backbones of detectors begin with what the classifiers of Table 1 have learned,
            of the same seed.
    """

    scale: str = "small"
    data: Data = Data("fashion_mnist")
    detection_data: Data = Data("scenes", "data/scenes")
    seeds: int = 3
    limits: tuple[tuple[str, int], ...] = ()
    backbones: bool = False

    def __post_init__(self) -> None:
        find_scale(self.scale)
        limits = [(f"limit-{name.replace('_', '-')}", value) for name, value in self.limits]
        for option, value in (("seeds", self.seeds), *limits):
            if value < 1:
                raise ArgumentError(message("paper run", f"--{option} must be at least 1", value))

    def data_of(self, task: str) -> Data:
        """Where the images of this task come from."""
        return self.detection_data if task == DETECTION else self.data

    def training(self, task: str) -> Training:
        """How networks of this task are trained."""
        training = find_scale(self.scale).trainings[self.data_of(task).kind]
        return dataclasses.replace(training, **dict(self.limits))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        name: of the run folder: network, seed and a digest of all settings.
        network: what is trained.
        task: CLASSIFICATION or DETECTION.
        seed: of weights, order and random changes.
        settings: everything, as `lookaround fit --config` takes it, but for the backbone's folder.
        backbone: name of the run that a detector takes the weights of its backbone from; None: random ones.
    """

    name: str
    network: Network
    task: str
    seed: int
    settings: dict[str, Any]
    backbone: str | None = None

    @property
    def has_test(self) -> bool:
        """Whether there are test images; a folder may have none, and COCO's have no boxes."""
        data = self.settings["data"]
        return data["dataset"] != "coco" and has_test_images(data["dataset"], data["root"])

    def work(self) -> float:
        """Estimate how much there is to do: FLOPs of an image times the images of all epochs, roughly."""
        data, trainer = self.settings["data"], self.settings["trainer"]
        size = data.get("image_size")
        try:
            with torch.device("meta"):
                model = create_model(self.network.model, **self.network.overrides)
            flops = model_costs(model, _SIZES[data["dataset"]] if size is None else size).executed_flops
        except LookaroundError:  # it will be reported when it is run
            return 0.0
        epoch = trainer.get("limit_train_batches", 1000) * data["batch_size"]
        return float(flops * trainer["max_epochs"] * epoch)


def make_job(row: PlanRow, task: str, request: Request, seed: int) -> Job:
    """Return the training of a row with a seed."""
    network = network_at(row, find_scale(request.scale))
    settings = _settings(network, task, request, seed)
    backbone = None
    if task == DETECTION and request.backbones:
        classifier = PlanRow(row.label, row.model.replace("retinanet_", ""))
        backbone = make_job(classifier, CLASSIFICATION, request, seed).name
    digest = _digest(settings if backbone is None else settings | {"backbone": backbone})
    return Job(f"{readable(network)}-seed{seed}-{digest}", network, task, seed, settings, backbone)


def make_jobs(experiments: Sequence[Experiment], request: Request) -> list[Job]:
    """Return every training that the experiments need, each once; all of a seed before the next seed."""
    jobs: dict[str, Job] = {}
    for seed in range(request.seeds):
        for experiment in experiments:
            for row in experiment.rows:
                job = make_job(row, experiment.task, request, seed)
                jobs.setdefault(job.name, job)
    return list(jobs.values())


def phases(jobs: Sequence[Job]) -> list[list[Job]]:
    """Cut jobs, in their order, so that none is in one phase with the run that its backbone is from."""
    cut: list[list[Job]] = []
    for job in jobs:
        if not cut or job.backbone in {other.name for other in cut[-1]}:
            cut.append([])
        cut[-1].append(job)
    return cut


def _settings(network: Network, task: str, request: Request, seed: int) -> dict[str, Any]:
    training, data = request.training(task), request.data_of(task)
    model: dict[str, Any] = {
        "model": network.model,
        "overrides": network.overrides,
        "optimizer": {
            name: getattr(training, name)
            for name in (
                "algorithm",
                "learning_rate",
                "reference_batch_size",
                "weight_decay",
                "warmup_epochs",
                "ema_decay",
            )
        },
    }
    if task != DETECTION:
        model["label_smoothing"] = training.label_smoothing
    return {
        "seed_everything": seed,
        "model": model,
        "data": _data_settings(training, data, request, seed),
        "trainer": _trainer_settings(training),
    }


def _data_settings(training: Training, data: Data, request: Request, seed: int) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "dataset": data.kind,
        "root": data.root,
        "image_size": training.image_size,
        "batch_size": training.batch_size,
        "num_workers": training.num_workers,
        "validation_fraction": training.held_out_fraction,
        "augment": training.augment,
        "seed": seed,
    }
    if data.kind == "scenes":
        settings["scenes"] = dict(find_scale(request.scale).scenes)
        settings["image_size"] = None  # scenes have a size
    elif data.kind != "coco":
        settings |= {"split_seed": SPLIT_SEED, "hold_out": True}
    return settings


def _trainer_settings(training: Training) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "max_epochs": training.epochs,
        "check_val_every_n_epoch": training.epochs if training.measure_once else 1,
        "accumulate_grad_batches": training.accumulated,
        "devices": 1,
        "log_every_n_steps": 20,
        "enable_model_summary": False,
    }
    if training.images_per_epoch is not None:
        settings["limit_train_batches"] = max(1, training.images_per_epoch // training.batch_size)
    if training.images_to_measure is not None:
        batches = max(1, training.images_to_measure // training.batch_size)
        settings |= {"limit_val_batches": batches, "limit_test_batches": batches}
    return settings


# What changes no figure: how many processes decode, what is logged.
_WITHOUT_EFFECT = (
    ("data", "num_workers"),
    ("trainer", "log_every_n_steps"),
    ("trainer", "enable_model_summary"),
)


def _digest(settings: dict[str, Any]) -> str:
    relevant = json.loads(json.dumps(settings))
    for part, name in _WITHOUT_EFFECT:
        del relevant[part][name]
    root = relevant["data"].pop("root")
    if relevant["data"]["dataset"] in ("folder", "coco"):
        relevant["data"]["root"] = str(Path(root).resolve())
    text = json.dumps(relevant, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]
