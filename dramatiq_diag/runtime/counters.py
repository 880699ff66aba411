"""Reads what is counted for the calling thread: CPU time, run queue, page faults, garbage collection, throttling."""

from __future__ import annotations

import resource
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

from dramatiq.threading import is_gevent_active

from .cpu_limit import find_cpu_limit
from .gc_clock import GcClock
from .kept_file import KeptFile
from .thread_state import cpu_s

_SCHEDSTAT_BYTES = 100
_CPU_STAT_BYTES = 2000


class Counters(NamedTuple):
    """What was counted for one thread up to a moment; None where the platform does not tell."""

    cpu_s: float
    run_queue_s: float | None
    "For how long it could run and had no processor."
    gc_s: float
    "The CPU time of Python's garbage collector on it, since that is counted."
    throttled_s: float | None
    "For how long the control group of the process was throttled; None where no group of it has a limit."
    minor_faults: int | None
    major_faults: int | None


class ThreadTimes(NamedTuple):
    """Some of the counters of a thread, as another one reads them, in seconds; None where they are not known."""

    cpu_s: float | None
    run_queue_s: float | None
    gc_s: float | None


class CounterReader:
    """Reads the counters of the thread that calls it, in about 4 us. Made after the fork; any thread may use it.

    Parameters:
      root: The directory that has `proc` and `sys`.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.gc_clock = GcClock()
        self.is_thread_shared = "gevent.monkey" in sys.modules and is_gevent_active()
        "Whether all tasks of the process share one thread, as under gevent: its figures are of no single task then."
        self._root = root
        self._limit = find_cpu_limit(root)
        self._files = threading.local()

    def read(self) -> Counters:
        """Returns: The counters now."""
        run_queue_s, throttled_s = self._files_of_kernel()
        gc_s = self.gc_clock.seconds(threading.get_ident())
        return Counters(time.thread_time(), run_queue_s, gc_s, throttled_s, *_faults())

    def read_times(self, thread_id: int, native_id: int) -> ThreadTimes:
        """Returns: What another thread can be told of a thread now.

        Parameters:
          thread_id: Its id as `threading.get_ident` gives it.
          native_id: Its id in the kernel.
        """
        file = KeptFile.opened(self._root / f"proc/self/task/{native_id}/schedstat", _SCHEDSTAT_BYTES)
        run_queue_s = None if file is None else _run_queue_s(file.read())
        return ThreadTimes(cpu_s(native_id), run_queue_s, self.gc_clock.seconds(thread_id))

    def _files_of_kernel(self) -> tuple[float | None, float | None]:
        """Returns: The seconds on the run queue, and those for which the group was throttled."""
        schedstat: KeptFile | None
        cpu_stat: KeptFile | None
        try:
            schedstat, cpu_stat = self._files.opened
        except AttributeError:
            schedstat, cpu_stat = self._files.opened = self._open()
        run_queue_s = None if schedstat is None else _run_queue_s(schedstat.read())
        if self._limit is None or cpu_stat is None:
            return run_queue_s, None
        return run_queue_s, self._limit.throttled_s(cpu_stat.read())

    def _open(self) -> tuple[KeptFile | None, KeptFile | None]:
        path = self._root / f"proc/self/task/{threading.get_native_id()}/schedstat"
        limit = self._limit
        cpu_stat = None if limit is None else KeptFile.opened(limit.stat, _CPU_STAT_BYTES)
        return KeptFile.opened(path, _SCHEDSTAT_BYTES), cpu_stat


def _run_queue_s(text: bytes) -> float | None:
    """Returns: The second number of `schedstat`, in seconds; None where it has none, or the kernel does not count.

    The third number is how often the thread got a processor. A kernel that does not count writes `0 0 0`.
    """
    try:
        _, waited_ns, turns = map(int, text.split()[:3])
    except ValueError:
        return None
    return waited_ns / 1e9 if turns else None


if hasattr(resource, "RUSAGE_THREAD"):

    def _faults() -> tuple[int | None, int | None]:
        """Returns: The minor and the major page faults of this thread."""
        usage = resource.getrusage(resource.RUSAGE_THREAD)
        return usage.ru_minflt, usage.ru_majflt

else:

    def _faults() -> tuple[int | None, int | None]:
        """Returns: Nothing: only Linux counts them for each thread."""
        return None, None
