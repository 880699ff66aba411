"""Reads what is counted for the calling thread: CPU time, run queue, page faults, garbage collection, throttling."""

from __future__ import annotations

import resource
import sys
import threading
import time
from mmap import PAGESIZE
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from dramatiq.threading import is_gevent_active

from .cpu_limit import CpuLimit, find_cpu_limit
from .gc_clock import GcClock
from .kept_file import KeptFile
from .thread_state import cpu_s

#: Only Linux counts what each thread uses; None elsewhere.
_OWN_THREAD: int | None = getattr(resource, "RUSAGE_THREAD", None)

_SCHEDSTAT_BYTES = 100
_CPU_STAT_BYTES = 2000


class Spent(TypedDict):
    """What was counted for one thread between two moments; None where the platform does not tell."""

    cpu_ms: float
    run_queue_ms: float | None
    gc_ms: float
    touched_bytes: int | None
    major_faults: int | None


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
    limit: CpuLimit | None = None
    usage: Any = None
    "What `resource.getrusage` gave for the thread."

    @property
    def run_queue_s(self) -> float | None:
        """For how long it could run and had no processor."""
        return _run_queue_s(self.schedstat)

    @property
    def throttled_s(self) -> float | None:
        """For how long the control group of the process was throttled; None where no group of it has a limit."""
        return None if self.limit is None else self.limit.throttled_s(self.cpu_stat)

    @property
    def touched_bytes(self) -> int | None:
        """What it has touched first of the memory."""
        return None if self.usage is None else int(self.usage.ru_minflt) * PAGESIZE

    def since(self, before: Counters) -> Spent:
        """Returns: What was counted for the thread since an earlier moment."""
        # All in one function: right after a task each further one costs about a microsecond.
        queued_s, queued_before_s = _run_queue_s(self.schedstat), _run_queue_s(before.schedstat)
        queued_ms = None if queued_s is None or queued_before_s is None else (queued_s - queued_before_s) * 1000
        usage, usage_before = self.usage, before.usage
        is_known = usage is not None and usage_before is not None
        return {
            "cpu_ms": round(max(self.cpu_s - before.cpu_s, 0.0) * 1000, 3),
            "run_queue_ms": None if queued_ms is None else round(max(queued_ms, 0.0), 3),
            "gc_ms": round(max(self.gc_s - before.gc_s, 0.0) * 1000, 3),
            "touched_bytes": (usage.ru_minflt - usage_before.ru_minflt) * PAGESIZE if is_known else None,
            "major_faults": usage.ru_majflt - usage_before.ru_majflt if is_known else None,
        }


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
        try:
            schedstat, cpu_stat = self._files.opened
        except AttributeError:
            schedstat, cpu_stat = self._files.opened = self._open()
        # `Counters(...)` is one more function in Python, which takes 3 us right after a task.
        values = (
            time.thread_time(),
            self.gc_clock.seconds(threading.get_ident()),
            b"" if schedstat is None else schedstat.read(),
            b"" if cpu_stat is None else cpu_stat.read(),
            self._limit,
            None if _OWN_THREAD is None else resource.getrusage(_OWN_THREAD),
        )
        return tuple.__new__(Counters, values)

    def read_times(self, thread_id: int, native_id: int) -> ThreadTimes:
        """Returns: What another thread can be told of a thread now.

        Parameters:
          thread_id: Its id as `threading.get_ident` gives it.
          native_id: Its id in the kernel.
        """
        file = KeptFile.opened(self._root / f"proc/self/task/{native_id}/schedstat", _SCHEDSTAT_BYTES)
        run_queue_s = _run_queue_s(b"" if file is None else file.read())
        return ThreadTimes(cpu_s(native_id), run_queue_s, self.gc_clock.seconds(thread_id))

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
