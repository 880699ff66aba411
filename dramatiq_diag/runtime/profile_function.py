"""Looks at, sets and removes the profile function of a thread where `sys.getprofile` and `sys.setprofile` cannot."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import accumulate, chain, repeat, takewhile
from typing import Any

#: The profile function is within these first bytes of CPython's `PyThreadState`, which is longer.
_LOOKED_AT_BYTES = 192

_python = ctypes.PyDLL(None)
_python.PyThreadState_Get.restype = ctypes.c_void_p


def _words() -> memoryview:
    """Returns: The first words of this thread's state."""
    return memoryview(ctypes.string_at(_python.PyThreadState_Get(), _LOOKED_AT_BYTES)).cast("P")


def _words_since(before: memoryview) -> list[tuple[int, int]]:
    """Returns: The place and the value of each word of this thread's state that was 0 before, and is not now."""
    pairs = enumerate(zip(before, _words(), strict=True))
    return [(place, now) for place, (was, now) in pairs if now and not was]


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
        self._found = _words_since(self._before)

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


class EveryThreadsProfileFunction:
    """Sets a profile function on all threads there are; make it where a thread may be begun.

    Parameters:
      function: The profile function, written in Python.
    """

    def __init__(self, function: Callable[[Any, str, Any], object]) -> None:
        self.function = function
        self._trampoline = 0 if sys.version_info >= (3, 12) else _trampoline()

    def setting(self) -> Callable[[], object]:
        """Makes a call that sets it; use the call once.

        All of the call is C code, which gives up the GIL nowhere: no thread begins, ends or runs Python code meanwhile.
        """
        if sys.version_info >= (3, 12):
            return partial(sys._setprofileallthreads, self.function)
        first = map(_first_thread, [_python.PyInterpreterState_Get()])
        threads = takewhile(bool, accumulate(chain(first, repeat(None)), _next_thread))
        return partial(deque, map(_set_profile, threads, repeat(self._trampoline), repeat(self.function)), 0)


# For CPython 3.11. `accumulate` passes a second argument, which the C function does not look at.
_address = ctypes.c_void_p
_python.PyInterpreterState_Get.restype = _address
_first_thread = ctypes.PYFUNCTYPE(_address, _address)(("PyInterpreterState_ThreadHead", _python))
_next_thread = ctypes.PYFUNCTYPE(_address, _address, _address)(("PyThreadState_Next", _python))
_set_profile = ctypes.PYFUNCTYPE(ctypes.c_int, _address, _address, ctypes.py_object)(("_PyEval_SetProfile", _python))


def _trampoline() -> int:
    """Returns: The address of the function of CPython 3.11 that calls a profile function which is written in Python."""
    found: list[int] = []

    def look() -> None:
        sys.setprofile(None)  # `threading.setprofile` may have set one.
        before = _words()
        sys.setprofile(nothing)
        since = _words_since(before)
        sys.setprofile(None)
        found.extend(word for _, word in since if word != id(nothing))

    def nothing(*_: object) -> None:
        pass

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    (address,) = found
    return address
