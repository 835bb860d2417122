"""What the workers of a crew do in tests: picklable, quick to import, and with every way to end."""

import os
import time
from pathlib import Path

from lookaround.errors import DataError

WAIT_SECONDS = 600  # that a job takes if nobody stops it: machines may be slow, but not that slow


def log_of(job: str) -> Path:
    return Path(job).parent / "logs" / f"{Path(job).name}.txt"


def act(job: str) -> None:
    """Do what the last part of the job's name says; leave a file that says by whom."""
    print(f"acting on {job}")
    os.write(2, b"and in compiled code\n")
    kind = Path(job).name.split("-")[0]
    if kind == "refuse":
        raise DataError("act: the images must be there; got none.")
    if kind == "raise":
        raise ZeroDivisionError("by zero")
    if kind == "die":
        os._exit(3)
    if kind == "wait":
        Path(job).with_suffix(".begun").touch()
        time.sleep(WAIT_SECONDS)
    Path(job).write_text(str(os.getpid()))
