"""The table of backends, in the order in which "auto" asks them."""

from lookaround.ops.backends import blocked, reference
from lookaround.ops.backends.base import Backend

BACKENDS: tuple[Backend, ...] = (blocked.BACKEND, reference.BACKEND)

__all__ = ["BACKENDS", "Backend"]
