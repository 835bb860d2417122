"""Whether there are the images that a table is measured on."""

from collections.abc import Sequence

from lookaround.data.folder import leaves_test
from lookaround.data.source import Settings
from lookaround.errors import DataError, message
from lookaround.models.variants import DETECTION
from lookaround.studies.paper_plan import EXPERIMENTS, HELD, Experiment


def has_test_images(kind: str, root: str | None) -> bool:
    """Tell whether a set has test images, as it is cut for the tables; only a folder may have none."""
    return kind != "folder" or leaves_test(Settings(root, hold_out=True))


def without_test(experiments: Sequence[Experiment], kind: str, root: str | None) -> bool:
    """Tell whether classifiers are measured on held-out training images alone, for want of test images.

    Raises:
        DataError: some of the experiments need test images.
    """
    classifying = [one for one in experiments if one.task != DETECTION]
    if not classifying or has_test_images(kind, root):
        return False
    needing = [one.name for one in classifying if not _held_out(one)]
    if needing:
        must = f"{', '.join(needing)} must have test images: a folder 'test' or 'val' beside 'train'"
        spared = " and ".join(one.name for one in EXPERIMENTS.values() if _held_out(one))
        hint = f"add the folder, or run {spared} alone, which are measured on held-out training images."
        raise DataError(message("paper run", must, f"neither in {root!r}", hint=hint))
    return True


def _held_out(experiment: Experiment) -> bool:
    return all(row.measured_on == HELD for row in experiment.rows)
