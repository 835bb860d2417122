"""The table of backends, in the order in which "auto" asks them."""

from lookaround.ops.backends import blocked, cpu, reference, triton
from lookaround.ops.backends.base import Backend

BACKENDS: tuple[Backend, ...] = (triton.BACKEND, cpu.BACKEND, blocked.BACKEND, reference.BACKEND)

__all__ = ["BACKENDS", "Backend"]
