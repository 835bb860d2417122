"""Every error that lookaround raises on purpose, and the one form their messages have.

```
LookaroundError
├── ArgumentError (ValueError)         an argument has a value that cannot be used
│   └── UnknownNameError               a model, override, recipe or class that is not known
├── ShapeError (ValueError)            tensors whose shapes do not fit together
├── DtypeError (TypeError)             tensors whose dtypes or devices do not fit together
├── BackendError (RuntimeError)        a backend was asked for and cannot serve
│   ├── UnknownBackendError            no backend has this name
│   └── UnsupportedCallError           the backend exists, but not for this call
├── CheckpointError (RuntimeError)     a weights file that cannot be read or is of another model
├── DataError (ValueError)             images, folders or labels that cannot be used
├── ExportError (RuntimeError)         an exported file would not compute what its network computes
├── ConfigError (ValueError)           a recipe or command line that cannot be used
└── NonFiniteLossError (ArithmeticError)   training produced a loss that is not a number
```
"""

import difflib
from collections.abc import Iterable, Sequence


class LookaroundError(Exception):
    """Base of every error that lookaround raises on purpose."""


class ArgumentError(LookaroundError, ValueError):
    """An argument has a value that cannot be used."""


class UnknownNameError(ArgumentError):
    """A model, override, recipe or class has a name that is not known."""


class ShapeError(LookaroundError, ValueError):
    """Tensors have shapes that do not fit together."""


class DtypeError(LookaroundError, TypeError):
    """Tensors have dtypes or devices that do not fit together."""


class BackendError(LookaroundError, RuntimeError):
    """A backend was asked for and cannot serve."""


class UnknownBackendError(BackendError):
    """No backend has the name that was asked for."""


class UnsupportedCallError(BackendError):
    """The backend that was asked for exists, but cannot run this call."""


class CheckpointError(LookaroundError, RuntimeError):
    """A weights file cannot be read, or belongs to another model."""


class DataError(LookaroundError, ValueError):
    """Images, folders or labels cannot be used."""


class ExportError(LookaroundError, RuntimeError):
    """An exported file would not compute what its network computes."""


class ConfigError(LookaroundError, ValueError):
    """A recipe or a command line cannot be used."""


class NonFiniteLossError(LookaroundError, ArithmeticError):
    """Training produced a loss that is not a finite number."""


def message(
    where: str,
    must: str,
    got: object,
    *,
    lines: Iterable[str] = (),
    hint: str | None = None,
) -> str:
    """Compose a message in the one form that every error of lookaround has.

    Args:
        where: the function or command that complains, as the user would call it.
        must: what must hold, in the present tense, naming the argument.
        got: what was given instead.
        lines: details that help to compare (`expected: …`, `actual: …`), one line each.
        hint: one thing to try.

    Example:
        >>> print(message("local_attention", "kernel_size must be odd", 4, hint="try 3 or 5."))
        local_attention: kernel_size must be odd; got 4.
        hint: try 3 or 5.
    """
    parts = [f"{where}: {must}; got {got}."]
    parts.extend(f"  {line}" for line in lines)
    if hint is not None:
        parts.append(f"hint: {hint}")
    return "\n".join(parts)


def closest(name: str, known: Sequence[str]) -> str:
    """Say which known name was probably meant, and list all of them.

    Example:
        >>> closest("resnet5", ["resnet26", "resnet50"])
        "did you mean 'resnet50'? Known: resnet26, resnet50."
    """
    listing = f"Known: {', '.join(known)}." if known else "None is known."
    matches = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {matches[0]!r}? {listing}" if matches else listing
