"""What a trained detector finds in images: boxes in a table, on the pictures, in COCO's result format."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lookaround.errors import ArgumentError, CheckpointError, DataError, message

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from lookaround.data.detection_preprocessing import DetectionPreprocessing
    from lookaround.models.checkpoint import ModelRecord
    from lookaround.models.retinanet import RetinaNet

LEAST_SCORE = 0.5
Seen = tuple["Tensor", "Image"]  # what the network sees, and the picture it is of


@dataclass
class Detector:
    """A trained detector on a device, and where to leave what it finds.

    Attributes:
        model: the network.
        record: what belongs to its weights.
        preprocessing: how an image is prepared.
        device: where it runs.
        least_score: boxes of a lower score are left out.
        out: folder for pictures and json; None: leave nothing.
    """

    model: "RetinaNet"
    record: "ModelRecord"
    preprocessing: "DetectionPreprocessing"
    device: str
    least_score: float
    out: Path | None
    results: list[dict[str, Any]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)

    @classmethod
    def of(
        cls, model: "RetinaNet", record: "ModelRecord", device: str, arguments: argparse.Namespace
    ) -> "Detector":
        """Build from what was loaded and asked for.

        Raises:
            ArgumentError: a number is out of range, or the folder cannot be one.
            CheckpointError: the record does not say how images are prepared.
        """
        import torch

        from lookaround.data.detection_preprocessing import DetectionPreprocessing

        score = LEAST_SCORE if arguments.score is None else arguments.score
        if not 0 <= score <= 1:
            raise ArgumentError(message("predict", "--score must be from 0 to 1", score))
        if arguments.out is not None and arguments.out.exists() and not arguments.out.is_dir():
            raise ArgumentError(message("predict", "--out must be a folder", f"the file {arguments.out}"))
        try:
            preprocessing = DetectionPreprocessing.from_dict(record.preprocessing)
        except ArgumentError as error:
            must = "the weights' record must say how images are prepared"
            raise CheckpointError(message("predict", must, f"this: {error}")) from error
        placed = model.eval().to(device).to(memory_format=torch.channels_last)
        return cls(placed, record, preprocessing, device, score, arguments.out)

    def prepare(self, picture: "Image") -> Seen:
        """Turn a picture into what the network sees, and keep the picture."""
        return self.preprocessing.evaluation(picture), picture

    def predict(self, paths: Sequence[Path], seen: Sequence[Seen]) -> Iterator[dict[str, Any]]:
        """Find objects in a batch of images, and leave the pictures; a row of the report for each.

        Raises:
            CheckpointError: the network gives no numbers.
            DataError: a picture cannot be written.
        """
        import torch

        with torch.inference_mode():
            found = self.model([tensor.to(self.device) for tensor, _ in seen])
        for path, (tensor, picture), boxes in zip(paths, seen, found, strict=True):
            if not all(bool(torch.isfinite(values.float()).all()) for values in boxes.values()):
                hint = "take weights of a run that did not diverge."
                must = "the network must give finite numbers"
                raise CheckpointError(message("predict", must, "NaN or infinity", hint=hint))
            yield self._row(path, tensor, picture, boxes)

    def _row(
        self, path: Path, tensor: "Tensor", picture: "Image", found: dict[str, "Tensor"]
    ) -> dict[str, Any]:
        import torch

        kept = found["scores"] >= self.least_score
        scale = torch.tensor(picture.size, dtype=torch.float32) / torch.tensor(tensor.shape[:0:-1])
        corners = found["boxes"][kept].float().cpu() * scale.repeat(2)
        labels, scores = found["labels"][kept].tolist(), found["scores"][kept].tolist()
        rows = zip(corners.tolist(), labels, scores, strict=True)
        detections = [
            {"label": self._name(label), "score": score, "box": box, "category_id": self._category(label)}
            for box, label, score in rows
        ]
        number = len(self.images) + 1
        size = {"width": picture.width, "height": picture.height}
        self.images.append({"id": number, "file_name": str(path), **size})
        self.results += [_result(number, entry) for entry in detections]
        row = {"image": str(path), **size, "detections": detections}
        if self.out is not None:
            row["picture"] = str(self._draw(self.out / self._file(path), picture, detections, labels))
        return row

    def _name(self, label: int) -> str:
        names = self.record.class_names
        return names[label] if label < len(names) else f"class {label}"

    def _category(self, label: int) -> int:
        ids = self.record.category_ids
        return ids[label] if label < len(ids) else label

    def _file(self, path: Path) -> str:
        """Name a picture after its image; with a number where two images have one name."""
        name, number = f"{path.stem}.png", 1
        while name in self.taken:
            number += 1
            name = f"{path.stem}-{number}.png"
        self.taken.add(name)
        return name

    def _draw(
        self, file: Path, picture: "Image", detections: list[dict[str, Any]], labels: list[int]
    ) -> Path:
        from lookaround.explorer.boxes import DrawnBox, draw_boxes
        from lookaround.training.files import replacing

        boxes = [
            DrawnBox(tuple(entry["box"]), f"{entry['label']} {entry['score']:.2f}", label)
            for entry, label in zip(detections, labels, strict=True)
        ]
        try:
            with replacing(file) as temporary:
                draw_boxes(picture, boxes).save(temporary, format="PNG")
        except OSError as error:
            raise DataError(message("predict", "--out must be writable", f"{file} ({error})")) from error
        return file

    def finish(self) -> list[Path]:
        """Write `detections.json` in COCO's result format, and `images.json` that says of which images.

        Returns:
            The files, which COCO's tools read together: `COCO(images).loadRes(detections)`.
        """
        from lookaround.training.files import write_json

        if self.out is None:
            return []
        count = self.model.config.num_classes
        categories = [{"id": self._category(label), "name": self._name(label)} for label in range(count)]
        document = {"images": self.images, "annotations": [], "categories": categories}
        files = [self.out / "detections.json", self.out / "images.json"]
        for file, content in zip(files, (self.results, document), strict=True):
            write_json(file, content)
        return files


def _result(image_id: int, entry: dict[str, Any]) -> dict[str, Any]:
    x1, y1, x2, y2 = entry["box"]
    box = [x1, y1, x2 - x1, y2 - y1]
    return {
        "image_id": image_id,
        "category_id": entry["category_id"],
        "bbox": box,
        "score": entry["score"],
    }
