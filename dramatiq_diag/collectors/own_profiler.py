"""pyinstrument's own profiler, taken away from its thread whatever state an interrupt left it in."""

from __future__ import annotations

import ctypes
import sys
from typing import Any


def is_heard(profiler: Any) -> bool:
    """Returns: Whether a `pyinstrument.Profiler` receives the samples of this thread."""
    from pyinstrument.stack_sampler import get_stack_sampler

    target = profiler._sampler_saw_call_stack
    return any(subscriber.target == target for subscriber in get_stack_sampler().subscribers)


def silence(profiler: Any) -> None:
    """Undoes `Profiler.start` on this thread, as far as it came; may be called again after an interrupt in it.

    pyinstrument undoes nothing of a start that an exception cuts short, nor of a stop. Then each later profiler of the
    thread fails with "There is already a profiler running", and each call on the thread costs what a profiler costs.
    """
    from pyinstrument.stack_sampler import active_profiler_context_var, get_stack_sampler

    target = profiler._sampler_saw_call_stack
    if active_profiler_context_var.get() == target:
        active_profiler_context_var.set(None)
    sampler: Any = get_stack_sampler()
    sampler.subscribers[:] = [subscriber for subscriber in sampler.subscribers if subscriber.target != target]
    sampler._update()  # Which removes the profile function where nobody is left.


class ThreadProfile:
    """The profile function of the thread that makes this, to be removed by another thread; for CPython 3.11."""

    def __init__(self) -> None:
        self._function = sys.getprofile()
        "Kept alive: the thread may be within it while it is removed."
        self._python = ctypes.PyDLL(None)
        self._python.PyThreadState_Get.restype = ctypes.c_void_p
        self._thread = ctypes.c_void_p(self._python.PyThreadState_Get())

    def remove(self) -> None:
        """Removes it; the thread must not have ended."""
        self._python._PyEval_SetProfile(self._thread, None, None)
