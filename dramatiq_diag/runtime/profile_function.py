"""Looks at and removes the profile function of a thread where `sys.getprofile` and `sys.setprofile` cannot."""

from __future__ import annotations

import ctypes
import sys

#: The profile function is within these first bytes of CPython's `PyThreadState`, which is longer.
_LOOKED_AT_BYTES = 192

_python = ctypes.PyDLL(None)
_python.PyThreadState_Get.restype = ctypes.c_void_p


def _words() -> memoryview:
    """Returns: The first words of this thread's state."""
    return memoryview(ctypes.string_at(_python.PyThreadState_Get(), _LOOKED_AT_BYTES)).cast("P")


class ProfileFunctionLook:
    """Finds out whether this thread still has a profile function that is written in C.

    `sys.getprofile` gives None for a function that was set without an object, as memray's is. The place of the function
    in the thread's state differs between versions of Python; so it is found by the word that changes while it is set.
    """

    def __init__(self) -> None:
        self._before = _words()
        self._found: list[tuple[int, int]] = []

    def during(self) -> None:
        """Call it once while the function is set on this thread."""
        pairs = enumerate(zip(self._before, _words(), strict=True))
        self._found = [(place, now) for place, (before, now) in pairs if now and not before]

    def after(self) -> None:
        """Call it once after the function was removed."""
        words = _words()
        self._found = [(place, value) for place, value in self._found if not words[place]]

    def was_replaced(self) -> bool:
        """Returns: True if this thread now has another profile function, or none; False if the same, or if unknown."""
        if len(self._found) != 1:
            return False
        place, value = self._found[0]
        return _words()[place] != value


class ThreadProfileFunction:
    """The profile function of the thread that makes this, to be removed by another thread; for CPython 3.11."""

    def __init__(self) -> None:
        self._function = sys.getprofile()
        "Kept alive: the thread may be within it while it is removed."
        self._thread = ctypes.c_void_p(_python.PyThreadState_Get())

    def remove(self) -> None:
        """Removes it; the thread must not have ended."""
        _python._PyEval_SetProfile(self._thread, None, None)
