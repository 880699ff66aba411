"""Looks at the threads of the process, with which the garbage collector must not interfere."""

from __future__ import annotations

import gc
import sys
from types import FrameType


class GarbagePause:
    """Keeps the garbage collector from running by itself, from `begin` to `end`.

    Whoever goes through the threads of the interpreter makes objects on the way, and so the collector may run. What it
    finalises (a file that is closed, a thread that is started) lets another thread run, which may end meanwhile or need
    the lock that is held: then the process crashes or hangs (python/cpython#106883, python/cpython#137400).
    """

    def __init__(self) -> None:
        self._was_enabled = False

    def begin(self) -> None:
        """Begins; does nothing where the collector does not run by itself anyway."""
        if gc.isenabled():
            self._was_enabled = True
            gc.disable()

    def end(self) -> None:
        """Ends; may be called again."""
        if self._was_enabled:
            gc.enable()  # First: an interrupt between the two lines must not leave the collector off.
            self._was_enabled = False


def current_frames() -> dict[int, FrameType]:
    """Returns: Thread -> its innermost frame. Let go of them before another thread runs on."""
    pause = GarbagePause()
    pause.begin()
    try:
        return sys._current_frames()
    finally:
        pause.end()
