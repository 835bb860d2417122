"""A detector as one graph: network, choice of the best boxes, and suppression of those that overlap."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import nms

from lookaround.integrations.deployment import Entry
from lookaround.models.padding import shrink_mask
from lookaround.models.retinanet import SIZE_DIVISIBLE, RetinaNet

# Boxes beside every image. The first stands for all that do not count; there are two, because traced graphs
# take it for granted that at least two boxes stay.
HIDDEN = ((-2.0, -2.0, -1.0, -1.0), (-4.0, -4.0, -3.0, -3.0))


class DetectorGraph(nn.Module):
    """From images to a fixed number of boxes with scores and labels.

    What `RetinaNet` computes of lists, it computes of one batch: images stand at its top left, and what is
    beyond their sizes is not seen. All images and classes go through one suppression, shifted apart: along
    one axis by the class and along the other by the image, so that coordinates stay small numbers.

    Args:
        model: the detector.
        entry: what prepares its images.
    """

    input_names = ("images", "image_sizes")
    output_names = ("boxes", "scores", "labels", "counts")
    step = SIZE_DIVISIBLE
    score_threshold: Tensor

    def __init__(self, model: RetinaNet, entry: Entry) -> None:
        super().__init__()
        self.entry, self.model = entry, model
        self.stride = 2 ** model.config.levels[-1]
        self.register_buffer("score_threshold", torch.tensor(model.config.score_threshold))
        for level, cell in enumerate(model.anchor_generator.cell_anchors):
            self.register_buffer(f"anchors{level}", cell.float().clone())

    def forward(self, images: Tensor, image_sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what was found, the best first.

        Args:
            images: batch channels height width, sides multiples of `step`, each image at the top left.
            image_sizes: batch 2, height and width of each image.

        Returns:
            boxes: batch detections 4, x1 y1 x2 y2 in pixels; zero where there is none.
            scores: batch detections; zero where there is none.
            labels: batch detections; -1 where there is none.
            counts: batch, how many there are.
        """
        images = self.entry(images)
        mask = mark_padding(images, image_sizes)
        outputs = self.model.network(images, mask)
        parts = [
            self._candidates(level, mask, outputs["cls_logits"][level], outputs["bbox_regression"][level])
            for level in range(len(self.model.config.levels))
        ]
        boxes, scores, labels = (torch.cat(part, 1) for part in zip(*parts, strict=True))
        largest = image_sizes.flip(1).repeat(1, 2)[:, None].to(boxes.dtype)
        boxes = torch.minimum(boxes.clamp(min=0), largest)
        height, width = images.shape[-2:]
        kept = self._suppress(boxes, scores, labels, (height, width))
        best, places = kept.topk(min(self.model.config.detections_per_image, kept.shape[1]))
        found = best > 0
        boxes = boxes.gather(1, places[..., None].expand(-1, -1, 4)) * found[..., None]
        return boxes, best * found, labels.gather(1, places).where(found, -1), found.sum(1)

    def _candidates(
        self, level: int, mask: Tensor, logits: Tensor, deltas: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Take the best boxes of a level: batch k 4, and their scores and labels, batch k."""
        config = self.model.config
        padding = shrink_mask(mask, 2 ** config.levels[level])
        assert padding is not None
        anchors = self._place_anchors(level, padding)
        each = getattr(self, f"anchors{level}").shape[0]
        hidden = padding.flatten(1)[:, :, None, None].expand(-1, -1, each, config.num_classes)
        scores = logits.float().sigmoid().flatten(1).masked_fill(hidden.flatten(1), -1.0)
        # There may be fewer than so many.
        scores = F.pad(scores, (0, config.candidates_per_level), value=-1.0)
        best, places = scores.topk(config.candidates_per_level)
        owners = (places // config.num_classes).clamp(max=anchors.shape[0] - 1)
        chosen = deltas.float().gather(1, owners[..., None].expand(-1, -1, 4))
        boxes = self.model.box_coder.decode_single(chosen.flatten(0, 1), anchors[owners].flatten(0, 1))
        return boxes.unflatten(0, places.shape), best, places % config.num_classes

    def _place_anchors(self, level: int, padding: Tensor) -> Tensor:
        """Give the anchors of a level: height*width*anchors 4; see `models.anchors.LevelAnchors`."""
        generator = self.model.anchor_generator
        rows, columns = (
            (torch.arange(side, device=padding.device) + generator.shift) * generator.strides[level]
            for side in padding.shape[1:]
        )
        rows, columns = torch.meshgrid(rows, columns, indexing="ij")
        centres = torch.stack([columns, rows, columns, rows], -1).flatten(0, 1)
        placed: Tensor = centres[:, None] + getattr(self, f"anchors{level}")
        return placed.flatten(0, 1)

    def _suppress(self, boxes: Tensor, scores: Tensor, labels: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the scores of the boxes that stay; zero for the others."""
        counts = scores > self.score_threshold
        images = torch.arange(boxes.shape[0], device=boxes.device)[:, None].expand_as(labels)
        right, down = labels * (size[1] + 1), images * (size[0] + 1)
        moved = boxes + torch.stack([right, down, right, down], -1)
        hidden = boxes.new_tensor(HIDDEN)
        # They lie on each other, so that the first of them suppresses the others.
        moved = torch.cat([moved.where(counts[..., None], hidden[0]).flatten(0, 1), hidden])
        shown = scores.where(counts, 0.0)
        flat = F.pad(shown.flatten(), (0, len(HIDDEN)))
        kept = nms(moved, flat, self.model.config.nms_threshold)
        stays = torch.zeros_like(flat).scatter(0, kept, 1.0)[: -len(HIDDEN)]
        return stays.view_as(shown) * shown


class ListedDetector(nn.Module):
    """A detector as it is, list by list, with the inputs and outputs of `DetectorGraph`, which is held to it.

    Args:
        model: the detector.
        entry: what prepares its images.
    """

    input_names, output_names = DetectorGraph.input_names, DetectorGraph.output_names
    step = SIZE_DIVISIBLE

    def __init__(self, model: RetinaNet, entry: Entry) -> None:
        super().__init__()
        self.entry, self.model = entry, model
        self.stride = 2 ** model.config.levels[-1]

    def forward(self, images: Tensor, image_sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return boxes, scores, labels and counts; see `DetectorGraph`."""
        whole = zip(self.entry(images), image_sizes.tolist(), strict=True)
        found = self.model([image[:, :height, :width] for image, (height, width) in whole])
        most = self.model.config.detections_per_image

        def together(name: str, fill: int) -> Tensor:
            rows = [
                torch.cat([one[name], one[name].new_full((most, *one[name].shape[1:]), fill)])
                for one in found
            ]
            return torch.stack([row[:most] for row in rows])

        counts = torch.tensor([len(one["scores"]) for one in found])
        return together("boxes", 0), together("scores", 0), together("labels", -1), counts


def mark_padding(images: Tensor, image_sizes: Tensor) -> Tensor:
    """Mark what is no part of the images: batch height width."""
    rows, columns = (torch.arange(side, device=images.device) for side in images.shape[-2:])
    below = rows >= image_sizes[:, :1]
    right = columns >= image_sizes[:, 1:]
    return below[:, :, None] | right[:, None, :]
