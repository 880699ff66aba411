"""What the processes of a test run share, because it takes long to make."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path


def made_once(directory: Path, name: str, make: Callable[[Path], None]) -> Path:
    """Makes something at the first call of all processes; the others wait for it. It is not to be changed.

    Parameters:
      directory: The directory that the processes share; the fixture `turns`.
      name: The name of the new directory in it.
      make: Fills the new directory.
    """
    made, done = directory / name, directory / f"{name}.done"
    with (directory / f"{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            made.mkdir()
            make(made)
            done.touch()
    return made
