"""Reads what is counted for the calling thread: CPU time, run queue, page faults, garbage collection, throttling."""

from __future__ import annotations

import ctypes
import resource
import sys
import threading
import time
from mmap import PAGESIZE
from pathlib import Path
from typing import Any, NamedTuple

from dramatiq.threading import is_gevent_active

from .cpu_limit import find_cpu_stat
from .gc_clock import GcClock
from .kept_file import PREAD, KeptFile
from .thread_state import cpu_s

#: Only Linux counts what each thread uses; None elsewhere.
_OWN_THREAD: int | None = getattr(resource, "RUSAGE_THREAD", None)

#: All characters of `schedstat`, and the most bytes of it.
SCHEDSTAT_CHARACTERS = b"0123456789 \n"
_SCHEDSTAT_BYTES = 100
_CPU_STAT_BYTES = 2000

#: The fields of `Counters`, as they are read: to make an object of a class takes 3 us right after a task.
Reading = tuple[float, float, bytes, bytes, Any]


class Counters(NamedTuple):
    """What was counted for one thread up to a moment; None where the platform does not tell.

    The texts of the kernel are kept, and parsed where a value is asked for: after a task none of this code is in the
    processor's caches, and each step takes ten times as long as it does otherwise.
    """

    cpu_s: float
    gc_s: float = 0.0
    "The CPU time of Python's garbage collector on it, since that is counted."
    schedstat: bytes = b""
    cpu_stat: bytes = b""
    "Of the control group of the process that has a limit of CPU time; empty where none has."
    usage: Any = None
    "What `resource.getrusage` gave for the thread."

    @property
    def run_queue_s(self) -> float | None:
        """For how long it could run and had no processor."""
        return run_queue_s(self.schedstat)

    @property
    def touched_bytes(self) -> int | None:
        """What it has touched first of the memory."""
        return None if self.usage is None else int(self.usage.ru_minflt) * PAGESIZE


class ThreadTimes(NamedTuple):
    """Some of the counters of a thread, as another one reads them, in seconds; None where they are not known."""

    cpu_s: float | None
    run_queue_s: float | None
    gc_s: float | None


class ThreadCounters:
    """Reads the counters of one thread, which alone may use it.

    All is in one function, and its file is read into a buffer of its own: right after a task each further function
    costs more than a microsecond.
    """

    __slots__ = ("_buffer", "_cpu_stat", "_descriptor", "_gc_clock", "_schedstat", "_thread_id")

    def __init__(self, gc_clock: GcClock, schedstat: KeptFile | None, cpu_stat: KeptFile | None) -> None:
        self._gc_clock = gc_clock
        self._thread_id = threading.get_ident()
        self._schedstat = schedstat  # It closes the file with this object.
        self._descriptor = -1 if schedstat is None else schedstat.descriptor
        self._buffer: Any = ctypes.create_string_buffer(_SCHEDSTAT_BYTES)
        self._cpu_stat = cpu_stat

    def read(self) -> Reading:
        """Returns: The counters now."""
        cpu_s, gc_s, schedstat = time.thread_time(), self._gc_clock.seconds(self._thread_id), b""
        if self._descriptor >= 0 and (count := PREAD(self._descriptor, self._buffer, _SCHEDSTAT_BYTES, 0)) > 0:
            schedstat = self._buffer[:count]
        cpu_stat = b"" if self._cpu_stat is None else self._cpu_stat.read()
        return cpu_s, gc_s, schedstat, cpu_stat, None if _OWN_THREAD is None else resource.getrusage(_OWN_THREAD)


class CounterReader:
    """Has the counters of each thread. Made after the fork; any thread may use it.

    Parameters:
      root: The directory that has `proc` and `sys`.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.gc_clock = GcClock()
        self.is_thread_shared = "gevent.monkey" in sys.modules and is_gevent_active()
        "Whether all tasks of the process share one thread, as under gevent: its figures are of no single task then."
        self._root = root
        self._cpu_stat = find_cpu_stat(root)
        self._threads = threading.local()

    def own(self) -> ThreadCounters:
        """Returns: The counters of the calling thread; their files are closed with the thread."""
        try:
            own: ThreadCounters = self._threads.counters
        except AttributeError:
            path = self._root / f"proc/self/task/{threading.get_native_id()}/schedstat"
            cpu_stat = None if self._cpu_stat is None else KeptFile.opened(self._cpu_stat, _CPU_STAT_BYTES)
            own = ThreadCounters(self.gc_clock, KeptFile.opened(path, _SCHEDSTAT_BYTES), cpu_stat)
            self._threads.counters = own
        return own

    def read_times(self, thread_id: int, native_id: int) -> ThreadTimes:
        """Returns: What another thread can be told of a thread now.

        Parameters:
          thread_id: Its id as `threading.get_ident` gives it.
          native_id: Its id in the kernel.
        """
        file = KeptFile.opened(self._root / f"proc/self/task/{native_id}/schedstat", _SCHEDSTAT_BYTES)
        queued_s = run_queue_s(b"" if file is None else file.read())
        return ThreadTimes(cpu_s(native_id), queued_s, self.gc_clock.seconds(thread_id))


def run_queue_s(schedstat: str | bytes) -> float | None:
    """Returns: The second number of `schedstat`, in seconds; None where it has none, or the kernel does not count.

    The third number is how often the thread got a processor. A kernel that does not count writes `0 0 0`.
    """
    try:
        _, waited_ns, turns = map(int, schedstat.split()[:3])
        return waited_ns / 1e9 if turns else None
    except (ValueError, OverflowError):  # The text may be one from the spool.
        return None
