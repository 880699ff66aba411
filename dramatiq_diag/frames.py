"""The innermost frames of all threads."""

from __future__ import annotations

import gc
import sys
from types import FrameType


def current_frames() -> dict[int, FrameType]:
    """Returns: Thread -> its innermost frame. Let go of them before another thread runs on.

    Python holds a lock of its own meanwhile, and before 3.11.9 and 3.12.3 the garbage collector may run below it: what
    it finalises (a file that is closed, a thread that is started) may need that lock, or let another thread run that
    does, and then the whole process hangs (python/cpython#106883).
    """
    if not gc.isenabled():
        return sys._current_frames()
    gc.disable()
    try:
        return sys._current_frames()
    finally:
        gc.enable()
