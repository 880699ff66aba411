"""Triggers that fire at once or never, and what they began."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from support import PATIENCE_S

#: Due at the first look.
NOW = "after 1ms"
#: Due never, as far as a test is concerned.
LATER = "after 1h"

LATE = ["memory", "pyinstrument", "memray"]


def spin_until(condition: Callable[[], Any]) -> None:
    """Works busily until something has happened elsewhere."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_at


def has_function(run: Any, name: str) -> bool:
    """Returns: Whether the profile of a run has a function so far."""
    functions = [each for _, found in run.recordings.so_far() if found for each in found.get("functions", ())]
    return any(each["function"].rpartition(".")[2] == name for each in functions)


class Runs:
    """What the runs of a bench have, as seen from inside a task."""

    def __init__(self, tasks: Any) -> None:
        self.process = tasks.diagnostics.process

    def current(self) -> Any:
        return self.process.runs[threading.get_ident()]

    def begun(self, *names: str) -> Callable[[], bool]:
        """Returns: Whether the collectors were started in this run."""
        run = self.current()
        return lambda: set(names) <= {name for name, over in dict(run.late.begun).items() if over}

    def sampled(self, name: str) -> Callable[[], bool]:
        return partial(has_function, self.current(), name)

    def wrote_stacks(self) -> Callable[[], bool]:
        run = self.current()
        return lambda: run.late.wrote_stacks
