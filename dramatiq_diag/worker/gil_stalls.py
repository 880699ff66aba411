"""Tells of times in which C code kept the GIL: to those who ask for a stack, and in the artifacts of the runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from dramatiq import Actor

from ..collectors.services import Services
from ..runtime.gil_watchdog import MAX_DEPTH, GilStall, GilWatchdog
from ..runtime.report_text import frame_text
from .run import Run
from .stack_log import StackLog

#: The function of Dramatiq that calls the function of an actor, on the thread of the task.
_CALLS_FUNCTION = Actor.__call__.__qualname__

#: Seconds for which an answer tells of a stall that is over.
_FRESH_S = 60.0


class GilStalls:
    """The stalls of a process, while it has diagnosed runs.

    Parameters:
      is_on: Whether it looks at all.
    """

    def __init__(self, services: Services, *, is_on: bool) -> None:
        self._services = services
        self._watchdog = GilWatchdog() if is_on and _has_gil() else None
        self._last: tuple[GilStall, float] | None = None
        "The last stall, and when it was found."
        self._logs: dict[Run, StackLog] = {}
        self._seen: Sequence[Run] = ()
        "The runs at the last look."

    @property
    def note(self) -> str | None:
        """A sentence about a stall that is just over; None if there was none. Any thread may ask."""
        last = self._last
        return last[0].text if last is not None and time.monotonic() - last[1] < _FRESH_S else None

    def rest(self) -> None:
        """Looks at nothing until the next `look`. Runs on the ticker's thread, as all that follows."""
        self._seen, self._logs = (), {}
        if self._watchdog is not None:
            self._watchdog.rest()

    def look(self, runs: Sequence[Run]) -> None:
        """Finds a stall that ends now, and writes it into the artifacts of the runs that it held up."""
        if self._watchdog is None:
            return
        # Those of the last look may just have ended, as with a call that keeps the GIL until the end of the task.
        runs, self._seen = tuple(dict.fromkeys((*self._seen, *runs))), runs
        if not runs:
            self._watchdog.rest()
            return
        if any(run not in runs for run in self._logs):  # A run has its message, whose arguments may be large.
            self._logs = {run: log for run, log in self._logs.items() if run in runs}
        stall = self._watchdog.look()
        if stall is None:
            return
        if stall.thread_id in {run.thread_id for run in runs} and _has_returned(stall):
            stall = replace(stall, frames=())
        self._last = stall, time.monotonic()
        held_up = [run for run in runs if _is_held_up(run, stall.seconds)]
        self._logs = {run: self._logs.get(run) or StackLog(run) for run in held_up}
        for log in self._logs.values():
            log.write(f"# {stall.text}\n{''.join(map(frame_text, stall.frames))}\n")


def _has_returned(stall: GilStall) -> bool:
    """Returns: Whether the function of the task is not on the stack of its thread any more."""
    is_whole = len(stall.frames) < MAX_DEPTH
    return is_whole and all(frame.function != _CALLS_FUNCTION for frame in stall.frames)


def _is_held_up(run: Run, stall_s: float) -> bool:
    """Returns: Whether a run went on through a stall that is just over. No run ends in the middle of one."""
    ended_s_ago = 0.0 if run.ended is None else run.clock() - run.ended
    return run.elapsed_s + ended_s_ago >= stall_s and ended_s_ago < stall_s / 2


def _has_gil() -> bool:
    return sys.platform == "linux" and getattr(sys, "_is_gil_enabled", lambda: True)()
