"""Whether an exported graph computes what its network computes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lookaround.errors import ExportError, message
from lookaround.integrations.deployment import ClassifierGraph, Example, Graph, Plan, draw_inputs

Run = Callable[[Example], Sequence[Tensor]]
Findings = tuple[
    dict[str, float], list[str], int
]  # largest differences, what is wrong, how much was compared
# Of the largest value: sums of hundreds of terms in another order and precision, for some fifty layers.
TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
MOST_LINES = 5


@dataclass(frozen=True)
class Verified:
    """What a comparison of an export with its network found.

    Attributes:
        sizes: batch, height and width of the inputs.
        differences: the largest difference of each output, in its own unit.
        tolerance: the largest difference allowed, as a share of the largest value.
        values: how many numbers of classifiers, or boxes of detectors, were compared.
    """

    sizes: list[tuple[int, int, int]]
    differences: dict[str, float]
    tolerance: float
    values: int


def verify(run: Run, reference: Graph, plan: Plan) -> Verified:
    """Run an export and its network on random images of every size that the plan names, and compare.

    Args:
        run: the export; takes and returns tensors.
        reference: what `make_reference` made; a detector's threshold of scores is that of the export.
        plan: how it was exported.

    Raises:
        ExportError: a difference is larger than the dtype explains, or something is not finite.
    """
    tolerance = TOLERANCE[plan.dtype]
    worst: dict[str, float] = {}
    values = 0
    for seed, size in enumerate(plan.served_sizes(reference.step)):
        inputs = draw_inputs(reference, size, seed=seed)
        with torch.inference_mode():
            expected = reference(*inputs)
        differences, problems, count = _compare(reference, run(inputs), expected, tolerance)
        if problems:
            must = f"the export must compute what the network computes, for {size[0]} images of {size[1:]}"
            hint = None if plan.dtype == "float32" else "try float32."
            got = f"{len(problems)} difference{'s' if len(problems) > 1 else ''}"
            raise ExportError(message("export", must, got, lines=problems[:MOST_LINES], hint=hint))
        worst = {name: max(worst.get(name, 0.0), value) for name, value in differences.items()}
        values += count
    return Verified(plan.served_sizes(reference.step), worst, tolerance, values)


def _compare(
    reference: Graph, found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float
) -> Findings:
    if isinstance(reference, ClassifierGraph):
        return compare_classes(found, expected, tolerance)
    from lookaround.integrations.box_comparison import compare_boxes

    return compare_boxes(found, expected, tolerance, reference.model.config.nms_threshold)


def compare_classes(found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> Findings:
    """Compare logits and probabilities.

    Args:
        found: of the export.
        expected: of the network.
        tolerance: largest difference over the largest value.
    """
    differences, problems = {}, []
    for name, mine, theirs in zip(ClassifierGraph.output_names, found, expected, strict=True):
        if mine.shape != theirs.shape:
            problems.append(f"{name}: expected {tuple(theirs.shape)}; actual: {tuple(mine.shape)}")
            continue
        differences[name] = float((mine - theirs).abs().max())
        allowed = tolerance * float(theirs.abs().max())
        if not differences[name] <= allowed:  # a NaN fails too
            problems.append(f"{name}: off by {differences[name]:.3g}; allowed: {allowed:.3g}")
    return differences, problems, expected[0].numel()
