"""Counts the memory that each running run has touched first, by the page faults of its thread, from another thread."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterator, Mapping
from enum import Enum
from typing import NamedTuple

from ..runtime.thread_faults import ThreadFaults


class Part(Enum):
    """What is touched and cannot be said of one run."""

    SHARED = "shared"
    "By one of several runs on a thread, such as that of an event loop."
    OTHER = "other"
    "On threads that execute no diagnosed run."


class _Thread(NamedTuple):
    runs: frozenset[Hashable]
    "The ids of the runs on it; and `Part.OTHER`, if it executes undiagnosed tasks as well."
    touched_bytes: int


class TouchedMemory:
    """Counts for each run, from its start where that is known. All is called on one thread, and keeps the GIL.

    Parameters:
      faults: Reads the faults of threads.
    """

    def __init__(self, faults: ThreadFaults | None = None) -> None:
        self._faults = faults or ThreadFaults()
        self.clear()

    def clear(self) -> None:
        """Forgets all runs."""
        self._process_bytes: int | None = None
        self._met_bytes = 0
        "What runs had touched when they were met, since the last look; before that, they did not exist."
        self._threads: dict[int, _Thread] = {}
        "Native id -> what was read at the last look."
        self._touched: dict[Hashable, int] = {Part.SHARED: 0, Part.OTHER: 0}
        self._shared: set[Hashable] = set()
        "The runs that shared their thread at some look."

    def meet(self, run_id: uuid.UUID, native_id: int, at_start_bytes: int | None = None) -> None:
        """Begins to count for a run that has its thread for itself.

        Parameters:
          run_id: The run.
          native_id: Its thread.
          at_start_bytes: What the thread had touched when the run began; None where that is not known.
        """
        now = self._faults.thread_bytes(native_id)
        if run_id not in self._touched and now is not None:
            self._touched[run_id] = 0 if at_start_bytes is None else max(now - at_start_bytes, 0)
            self._met_bytes += self._touched[run_id]
            self._threads[native_id] = _Thread(frozenset((run_id,)), now)

    def __contains__(self, run_id: uuid.UUID) -> bool:
        return run_id in self._touched

    def shares_thread(self, run_id: uuid.UUID) -> bool:
        """Returns: Whether a run shared its thread with other tasks at some look."""
        return run_id in self._shared

    def bytes_of(self, run_id: uuid.UUID) -> int | None:
        """Returns: What a run had touched at the last look; None where that is not known."""
        return None if run_id in self._shared else self._touched.get(run_id)

    def look(
        self, threads: Mapping[int, Collection[Hashable]], executed: Collection[Hashable] = ()
    ) -> Mapping[Hashable, int]:
        """Counts what was touched since the last look. Returns: Run or part -> the bytes so far.

        Parameters:
          threads: Native id -> the runs on that thread, and `Part.OTHER`.
          executed: The runs whose coroutines their event loop executes just now.
        """
        known = dict(self._read(threads))
        process_bytes = self._faults.process_bytes()
        charged, self._met_bytes = self._met_bytes, 0
        for native_id, thread in known.items():
            before = self._threads.get(native_id)
            if before is not None and not before.runs.isdisjoint(thread.runs):
                touched_bytes = max(thread.touched_bytes - before.touched_bytes, 0)
                charged += touched_bytes
                self._charge(touched_bytes, before.runs, thread.runs, executed)
        if process_bytes is not None and self._process_bytes is not None:
            self._touched[Part.OTHER] += max(process_bytes - self._process_bytes - charged, 0)
        running = {run for thread in known.values() for run in thread.runs}
        before_bytes = defaultdict(int, self._touched)
        self._touched = {run: before_bytes[run] for run in (*running, *Part)}
        self._shared &= running
        self._threads, self._process_bytes = known, process_bytes
        return self._touched.copy()

    def _read(self, threads: Mapping[int, Collection[Hashable]]) -> Iterator[tuple[int, _Thread]]:
        for native_id, runs in threads.items():
            if (now := self._faults.thread_bytes(native_id)) is not None:
                yield native_id, _Thread(frozenset(runs), now)

    def _charge(
        self,
        touched_bytes: int,
        before: frozenset[Hashable],
        now: frozenset[Hashable],
        executed: Collection[Hashable],
    ) -> None:
        """Charges what a thread has touched to its run, to the one of several that is executed, or to none of them."""
        alone = len(before | now) == 1
        if not alone:
            self._shared |= before | now
        found = [run for run in before & now if alone or run in executed]
        run = found[0] if len(found) == 1 else Part.SHARED
        self._touched[run] = self._touched.get(run, 0) + touched_bytes
