"""Counts the runs of each actor, and keeps the least live memory of the process in windows of time, to find leaks."""

from __future__ import annotations

import math
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ..collectors.services import Services
from ..errors import GUARDED
from ..runtime.heap import Heap, HeapReader
from ..store.columns import NAME_LENGTH
from ..store.heap_windows import HeapWindowRecord
from ..store.values import clean_text
from .tuning import TUNING, Tuning

#: The most windows that wait for the database.
_MAX_WAITING = 1000

#: A process is no longer looked at when a look takes longer than this, in seconds: no task can run meanwhile.
_MAX_LOOK_S = 0.05

#: A window is at least as long as this part of the life of its process: one that lives for a year has some 2,000.
_AGE_SHARE = 1 / 200

_NO_HEAP = Heap(small_bytes=0, in_use_bytes=0, free_bytes=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Look:
    """A look at the live memory."""

    heap: Heap
    runs: Mapping[str, int]
    "Actor -> how many of its runs had ended since the process began."
    at_s: float
    "In seconds since the epoch."


class HeapWindows:
    """The windows of one process.

    The live memory is looked at when the message of a run was just acknowledged, by its task's thread: then it holds
    nothing of that run, and no task waits for the look. The least of a window has the least of the runs that go on. No
    thread is woken for it, and the numbers of a look are of one moment.

    Parameters:
      read: Reads the live memory; it returns None where that is not known.
      clock: Gives the time in seconds; it must not go back.
    """

    def __init__(
        self,
        services: Services,
        *,
        read: Callable[[], Heap | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        tuning: Tuning = TUNING,
    ) -> None:
        self._services = services
        self._read = HeapReader().read if read is None else read
        self._clock = clock
        self._tuning = tuning
        self._runs: defaultdict[str, int] = defaultdict(int)
        "Actor -> how many of its runs have ended. No thread switches within `+= 1`, as nothing is called in it."
        self._before = _Look(heap=_NO_HEAP, runs={}, at_s=time.time())
        "The least look of the window before."
        self._least: _Look | None = None
        "The least look of the open window."
        self._looks = 0
        self._next_look = 0.0
        self._born = self._opened = clock()
        self._number = 0
        self._waiting: deque[HeapWindowRecord] = deque(maxlen=_MAX_WAITING)

    def ended(self, actor_name: str) -> None:
        """Counts a run that has ended. Runs on the task's thread."""
        self._runs[actor_name] += 1

    def look(self) -> None:
        """Looks at the memory if that is due. Runs on a thread that has just ended a task; it raises nothing."""
        if self._clock() >= self._next_look:
            try:
                self._look()
            except GUARDED as error:
                self._services.warn_once(("heap", type(error)), error, "The live memory could not be read.")
                self._next_look = math.inf

    def end_in_child(self) -> None:
        """Makes a forked process look no more."""
        self._next_look = math.inf

    def waiting(self, *, is_last: bool = False) -> Sequence[HeapWindowRecord]:
        """Closes the open window if it is the last. Returns: The windows that wait to be stored. For any thread."""
        if is_last:
            self._close()
        return tuple(self._waiting)

    def stored(self, windows: Sequence[HeapWindowRecord]) -> None:
        """Forgets windows that were stored."""
        for window in windows:
            if window in self._waiting:  # It was pushed out where more have waited than may.
                self._waiting.remove(window)

    def _look(self) -> None:
        self._next_look = self._clock() + self._tuning.heap_look_s  # First: another thread need not look as well.
        began = time.thread_time()  # Without the time for which this thread waits for the GIL.
        heap = self._read()
        took_s, now = time.thread_time() - began, self._clock()
        if took_s > _MAX_LOOK_S:
            self._next_look = math.inf
        else:
            self._next_look = now + max(took_s / self._tuning.heap_share, self._tuning.heap_look_s)
        if heap is not None:
            self._note(heap, now)

    def _note(self, heap: Heap, now: float) -> None:
        """Notes what a look has seen, and closes the window if it is time."""
        least = self._least  # Another thread may close the window meanwhile.
        if least is None or heap.live_bytes < least.heap.live_bytes:
            self._least = _Look(heap=heap, runs=dict(self._runs), at_s=time.time())
        self._looks += 1
        if now - self._opened < max(self._tuning.heap_window_s, (now - self._born) * _AGE_SHARE):
            return
        if sum(self._runs.values()) - sum(self._before.runs.values()) >= self._tuning.heap_window_runs:
            self._close()

    def _close(self) -> None:
        """Closes the open window, if there was a look in it."""
        least, self._least = self._least, None
        if least is None:  # Another thread has just closed it.
            return
        before, self._before = self._before, least
        looks, self._looks = self._looks, 0
        number, self._number = self._number, self._number + 1
        self._opened = self._clock()
        runs = {name: count - before.runs.get(name, 0) for name, count in least.runs.items()}
        self._waiting.append(
            HeapWindowRecord(
                window_id=uuid.uuid4(),
                worker_id=self._services.worker_id,
                number=number,
                started_at=datetime.fromtimestamp(before.at_s, UTC),
                ended_at=datetime.fromtimestamp(least.at_s, UTC),
                runs={clean_text(name, NAME_LENGTH): count for name, count in runs.items() if count},
                looks=looks,
                small_bytes=least.heap.small_bytes,
                in_use_bytes=least.heap.in_use_bytes,
                free_bytes=least.heap.free_bytes,
                rss_bytes=self._rss_bytes(),
            )
        )

    def _rss_bytes(self) -> int | None:
        try:
            return self._services.rss.rss_bytes()
        except GUARDED:  # The window is worth keeping without it.
            return None
