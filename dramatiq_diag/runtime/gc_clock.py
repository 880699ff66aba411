"""Measures the CPU time that Python's garbage collector has used on each thread."""

from __future__ import annotations

import gc
import threading
import time
from functools import partial


class GcClock:
    """Notes the start and the end of each collection, while it is started.

    Note:
      An exception in a function of `gc.callbacks` is printed and dropped. If an interrupt of Dramatiq struck in one
      that is written in Python, its task would go on for ever. So ours are made of functions that are written in C:
      `max` asks twice for a key, and each time `map` stores the moment with the thread's id and CPU time.
    """

    def __init__(self) -> None:
        self._marks: dict[float, tuple[int, float]] = {}
        "Two moments at the start of each collection and two at its end -> the thread that it runs on, its CPU time."
        self._phases: dict[str, object] = {}
        "Its first key is the phase of the first two moments: a collection may be under way as this is started."
        spent = zip(iter(threading.get_ident, None), iter(time.thread_time, None), strict=False)
        store = map(self._marks.setdefault, iter(time.perf_counter, None), spent)
        self._callbacks = (self._phases.setdefault, partial(max, key=partial(next, store)))
        self._spent_s: dict[int, float] = {}
        self._lock = threading.Lock()
        self._is_closed = False

    def start(self) -> None:
        """Notes collections from now on. For any thread, also if it was called before."""
        with self._lock:
            if not self._is_closed and self._callbacks[-1] not in gc.callbacks:
                gc.callbacks.extend(self._callbacks)

    def stop(self) -> None:
        """Notes no more collections, and forgets all. Runs on the ticker's thread."""
        with self._lock:
            self._remove()

    def close(self) -> None:
        """Ends it for good: a later `start` does nothing."""
        with self._lock:
            self._is_closed = True
            self._remove()

    def end_in_child(self) -> None:
        """Notes nothing in a process that a task has forked: nobody would remove what is noted there."""
        self._lock = threading.Lock()  # The thread that holds the other one does not exist here.
        self.close()

    def _remove(self) -> None:
        for callback in self._callbacks:
            if callback in gc.callbacks:
                gc.callbacks.remove(callback)
        for noted in (self._marks, self._phases, self._spent_s):
            noted.clear()

    def seconds(self, thread_id: int) -> float:
        """Returns: The CPU time of collections on a thread since the start."""
        if not self._marks:  # `tidy` adds to the sums before it removes what it has added up.
            return self._spent_s.get(thread_id, 0.0)
        with self._lock:
            spent_s = self._spent_s.get(thread_id, 0.0)
            for (ident, start_s), (_, end_s) in self._ended():
                if ident == thread_id:
                    spent_s += end_s - start_s
            return spent_s

    def tidy(self) -> None:
        """Adds up the collections that have ended. Runs on the ticker's thread, now and then."""
        with self._lock:
            ended = self._ended()
            for (thread_id, start_s), (_, end_s) in ended:
                self._spent_s[thread_id] = self._spent_s.get(thread_id, 0.0) + end_s - start_s
            if ended:  # No interrupt strikes on this thread.
                for mark in list(self._marks)[: self._skipped() + 4 * len(ended)]:
                    del self._marks[mark]
                if self._skipped():
                    del self._phases["stop"]  # What is left begins with a start.

    def _skipped(self) -> int:
        """Returns: The number of moments of a collection whose start was not seen."""
        return 2 if next(iter(self._phases), "start") == "stop" else 0

    def _ended(self) -> list[tuple[tuple[int, float], tuple[int, float]]]:
        """Returns: The start and the end of each collection whose moments are there: its thread, and its CPU time."""
        marks = list(self._marks.values())[self._skipped() :]
        # Both end with the last collection that has ended: of one that runs there are only two moments.
        return list(zip(marks[1::4], marks[2::4], strict=False))
