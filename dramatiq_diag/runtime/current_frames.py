"""Reads the innermost frame of each thread, also beside other interpreters of this process."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate, chain, compress, repeat, takewhile
from operator import add, attrgetter, call, not_
from types import FrameType
from typing import Any, cast

#: The id of a thread is within these first bytes of CPython's `PyThreadState`, which is longer.
_LOOKED_AT_BYTES = 192

#: Since Python 3.12 an interpreter may have a GIL and an allocator of its own.
_MAY_HAVE_OWN_GIL = sys.version_info >= (3, 12)

_address = ctypes.c_void_p
_thread_state = ctypes.PYFUNCTYPE(_address)(("PyThreadState_Get", ctypes.pythonapi))
_own_interpreter = ctypes.PYFUNCTYPE(_address)(("PyInterpreterState_Get", ctypes.pythonapi))
_main_interpreter = ctypes.PYFUNCTYPE(_address)(("PyInterpreterState_Main", ctypes.pythonapi))
_newest_interpreter = ctypes.PYFUNCTYPE(_address)(("PyInterpreterState_Head", ctypes.pythonapi))
_first_thread = ctypes.PYFUNCTYPE(_address, _address)(("PyInterpreterState_ThreadHead", ctypes.pythonapi))
# `accumulate` passes a second argument, which the C function does not look at.
_next_thread = ctypes.PYFUNCTYPE(_address, _address, _address)(("PyThreadState_Next", ctypes.pythonapi))
_new_frame_of = ctypes.PYFUNCTYPE(_address, _address)(("PyThreadState_GetFrame", ctypes.pythonapi))
# It returns the object that it is given.
_object_at = ctypes.PYFUNCTYPE(ctypes.py_object, _address)(("PyObject_SelfIter", ctypes.pythonapi))
_drop = ctypes.PYFUNCTYPE(None, _address)(("Py_DecRef", ctypes.pythonapi))


def _id_at() -> int | None:
    """Returns: Where the id of a thread is in its `PyThreadState`, in bytes; None if it is not found."""
    words = memoryview(ctypes.string_at(cast(int, _thread_state()), _LOOKED_AT_BYTES)).cast("P").tolist()
    return words.index(threading.get_ident()) * ctypes.sizeof(_address) if threading.get_ident() in words else None


_OWN = _own_interpreter()
_MAIN = _main_interpreter()
_ID_AT = _id_at()


def steps_into(frames: dict[int, FrameType]) -> list[Iterator[object]]:
    """Returns: Iterators of C functions that fill *frames* by the ids of threads as they are run to their ends.

    Run them in one call of a C function. From the first frame on the GIL passes to no other thread meanwhile.

    Note:
      Beside other interpreters the threads of this one alone are read. `sys._current_frames` would go through those of
      all, and make objects for frames that run under another GIL at that moment, which ends the process since CPython
      3.12 (https://github.com/tamnd/cpython-internals/issues/179). No interpreter is made in between: a thread that
      makes one has this GIL, or that of an interpreter that is there already.
    """
    if not _MAY_HAVE_OWN_GIL:
        return [map(frames.update, called(sys._current_frames))]
    is_alone: list[bool] = []
    beside_others: Any = map(cast(Any, call), compress((partial(_steps_beside_others, frames),), map(not_, is_alone)))
    return [
        # The newest is the main one, which is the oldest.
        map(is_alone.append, map(_MAIN.__eq__, called(_newest_interpreter))),
        map(frames.update, map(cast(Any, call), compress((sys._current_frames,), is_alone))),
        chain.from_iterable(chain.from_iterable(beside_others)),
    ]


def called(function: Callable[[], Any]) -> Iterator[Any]:
    """Returns: An iterator that gives what the function returns, once, and calls it only then."""
    return map(cast(Any, call), (function,))


def _steps_beside_others(frames: dict[int, FrameType]) -> list[Iterator[object]]:
    """Returns: The steps that read the threads of this interpreter; none if that is not possible."""
    if _ID_AT is None:
        return []
    states: list[int] = []
    pointers: list[int | None] = []
    every_state: Any = accumulate(chain(map(_first_thread, (_OWN,)), repeat(None)), _next_thread)
    ids = map(attrgetter("value"), map(ctypes.c_ulong.from_address, map(add, states, repeat(_ID_AT))))
    return [
        map(states.append, takewhile(bool, every_state)),
        map(pointers.append, map(_new_frame_of, states)),
        map(frames.update, (zip(compress(ids, pointers), map(_object_at, filter(None, pointers)), strict=False),)),
        map(_drop, pointers),
    ]
