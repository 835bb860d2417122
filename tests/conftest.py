"""What holds for every test: deterministic algorithms (fresh memory is NaN), one thread, fixed seeds."""

import os
from collections.abc import Iterator

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile(
    "default", derandomize=True, deadline=None, max_examples=100, database=None, print_blob=False
)
# A planted bug only has to be found, not made small.
hypothesis.settings.register_profile(
    "mutants",
    parent=hypothesis.settings.get_profile("default"),
    max_examples=25,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    report_multiple_bugs=False,
)
# Triton's interpreter takes a second for a call.
hypothesis.settings.register_profile(
    "interpreter", parent=hypothesis.settings.get_profile("default"), max_examples=5
)
hypothesis.settings.load_profile("interpreter" if os.environ.get("TRITON_INTERPRET") else "default")

# Memory that an operator allocates and never writes is filled with NaN, so unwritten outputs show.
torch.use_deterministic_algorithms(True)
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def shapes_unchecked() -> Iterator[None]:
    """Let wrong shapes through to the library's own checks, before which the test run's checker would act."""
    from jaxtyping import config

    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", before)
