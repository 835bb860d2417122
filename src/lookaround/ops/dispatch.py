"""Which backend serves a call, and why the others do not."""

from lookaround.errors import UnknownBackendError, UnsupportedCallError, closest, message
from lookaround.ops.backends import BACKENDS, Backend
from lookaround.ops.call import Call


def list_backends() -> list[str]:
    """Name every backend, in the order in which "auto" asks them."""
    return [backend.name for backend in BACKENDS]


def check_backend(where: str, name: str) -> str:
    """Return `name`, or raise UnknownBackendError listing the known backends."""
    known = ["auto", *list_backends()]
    if name not in known:
        raise UnknownBackendError(
            message(where, "backend must be known", repr(name), hint=closest(name, known))
        )
    return name


def choose_backend(where: str, name: str, call: Call) -> Backend:
    """Return the backend of this name, or for "auto" the first that has no reasons against the call.

    Raises:
        UnknownBackendError: no backend has this name.
        UnsupportedCallError: the backend cannot serve this call; the message gives every reason.
    """
    check_backend(where, name)
    for backend in BACKENDS:
        if name == backend.name:
            reasons = backend.reasons_against(call)
            if reasons:
                raise UnsupportedCallError(_refusal(where, name, reasons))
            return backend
        if name == "auto" and not backend.reasons_against(call):
            return backend
    reasons = [
        f"{backend.name}: {reason}" for backend in BACKENDS for reason in backend.reasons_against(call)
    ]
    raise UnsupportedCallError(_refusal(where, name, reasons))


def explain(call: Call) -> dict[str, list[str]]:
    """Map every backend's name to its reasons against the call."""
    return {backend.name: backend.reasons_against(call) for backend in BACKENDS}


def _refusal(where: str, name: str, reasons: list[str]) -> str:
    return message(
        where,
        f"backend {name!r} must be able to run this call",
        f"{len(reasons)} reason{'s' if len(reasons) > 1 else ''} against it",
        lines=reasons,
        hint="use backend='auto', or ask lookaround.ops.explain_backends what can run.",
    )
