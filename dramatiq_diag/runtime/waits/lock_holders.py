"""Finds the thread that holds a lock: the one that is inside `with lock:`."""

from __future__ import annotations

import struct
import sys
import threading
from collections.abc import Iterator
from opcode import opmap
from types import CodeType

from ..frames import Look, thread_ids
from .own_memory import OwnMemory

#: The most innermost frames of a thread that are looked at.
_MAX_FRAMES = 50

#: Offsets in bytes within objects of CPython 3.11, 3.12 and 3.13. Its frame: where its variables are, and the place of
#: the first one there; a bound method: its object; a lock: its semaphore.
_FRAME_DATA, _FRAME_VARIABLES, _METHOD_SELF, _LOCK_SEMAPHORE = 24, 72, 24, 16
_IS_KNOWN = sys.implementation.name == "cpython" and (3, 11) <= sys.version_info[:2] <= (3, 13)

_LOCK_TYPES = (type(threading.Lock()), type(threading.RLock()))

_HANDLER_OF_WITH = (opmap.get("PUSH_EXC_INFO"), opmap.get("WITH_EXCEPT_START"))


class LockHolders:
    """Looks for a lock on the stacks of values of all threads: `with` leaves its `__exit__` there.

    Parameters:
      memory: Reads the objects. A frame may end, and its memory be given to others, while it is read.
    """

    def __init__(self, memory: OwnMemory) -> None:
        self._memory = memory

    def describe(self, semaphore: int) -> str:
        """Returns: A phrase for the thread that holds a lock; empty if none is found, as after `lock.acquire()`.

        Parameters:
          semaphore: The address that those who wait for the lock wait at.
        """
        if not _IS_KNOWN:
            return ""
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        look = Look()
        threads = [(each, look.thread(each), look.thread_positions(each)) for each in thread_ids()]
        look.take()
        for thread_id, places, positions in threads:
            for (code, line), (frame, offset) in list(zip(places, positions, strict=False))[:_MAX_FRAMES]:
                if any(self._is_lock(frame, slot, semaphore) for slot in _slots_of_with(code, offset)):
                    function = f"{code.co_qualname:.200} ({code.co_filename[-200:]}:{line or 0})"
                    return f"the thread {names.get(thread_id, '?')!r:.100} holds, in {function}"
        return ""

    def _is_lock(self, frame: int, slot: int, semaphore: int) -> bool:
        """Returns: Whether a value of a frame is the `__exit__` of the lock."""
        method = self._word(self._word(frame + _FRAME_DATA) + _FRAME_VARIABLES + 8 * slot)
        lock = self._word(method + _METHOD_SELF)
        return self._word(lock + _LOCK_SEMAPHORE) == semaphore and self._word(lock + 8) in map(id, _LOCK_TYPES)

    def _word(self, address: int) -> int:
        data = self._memory.read(address, 8)
        return int(struct.unpack("=Q", data)[0]) if len(data) == 8 else 0


def _slots_of_with(code: CodeType, offset: int) -> Iterator[int]:
    """Yields: Where, among the values of a frame, the `__exit__` of each `with` block is that an instruction is in."""
    if not code.co_exceptiontable:
        return
    handlers = list(_handlers(code.co_exceptiontable))
    variables = len({*code.co_varnames, *code.co_cellvars}) + len(code.co_freevars)
    for _ in handlers:
        found = next(((target, depth) for start, end, target, depth in handlers if start <= offset < end), None)
        if found is None:
            return
        offset, depth = found
        if (code.co_code[offset], code.co_code[offset + 2]) == _HANDLER_OF_WITH:
            yield variables + depth - 1


def _handlers(table: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yields: For a range of instructions its start and end, its handler, and how many values that finds on the stack.

    See `Objects/exception_handling_notes.txt` of CPython: numbers of 6 bits a byte, the highest first.
    """
    values = iter(table)
    for first in values:
        start, length, target, depth = (_number(first if number == 0 else next(values), values) for number in range(4))
        yield 2 * start, 2 * (start + length), 2 * target, depth >> 1


def _number(first: int, values: Iterator[int]) -> int:
    found, more = first & 63, first & 64
    while more:
        value = next(values)
        found, more = found << 6 | value & 63, value & 64
    return found
