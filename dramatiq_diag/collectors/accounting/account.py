"""Keeps what one run was seen in."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Mapping
from typing import Any, NamedTuple

from .arithmetic import OTHERS, Where
from .calls import GIL, RUNNING, SLEEP, UNKNOWN

#: The most different waits that one run is seen in, and how often it is tried to name one of them.
_MAX_KEYS = 1000
_MAX_TRIES = 5

#: A place stands for so many seconds at least: it may be all that is known of what the run was seen in before.
_LEAST_S = 1e-6

#: The thread of a task, and when it began to process it.
Task = tuple[int, Hashable]

#: What a coroutine is seen in that could go on.
LOOP_WAIT = "loop wait"

#: What needs no other name.
_NAMES: dict[Hashable, Where] = {
    LOOP_WAIT: ("loop_wait", None),
    GIL: ("gil_wait", None),
    UNKNOWN: ("unknown", None),
}


class Name(NamedTuple):
    """The name of a place."""

    where: Where
    is_whole: bool = True
    "False where a later look may tell more, such as the address of a peer."


class Account:
    """What one run was seen in.

    Parameters:
      thread_id: The thread that executes the run.
      native_id: Its id in the kernel.
      started: Gives the time at which the function was called, by `time.perf_counter`; earlier time is not charged.
      coroutine: Gives the coroutine of an async actor, once there is one; None for other actors.
    """

    def __init__(
        self,
        thread_id: int,
        native_id: int,
        started: Callable[[], float],
        coroutine: Callable[[], Coroutine[Any, Any, Any] | None] | None = None,
    ) -> None:
        self.thread_id = thread_id
        self.native_id = native_id
        self.started = started
        self.coroutine = coroutine
        self.last_s = 0.0
        self.sample_count = 0
        self.in_steps_s = 0.0
        "The seconds that those samples stand for that have seen a coroutine in its own steps."
        self.correction: Callable[[], Mapping[Hashable, float]] | None = None
        """Gives what is to be added to what it was seen in, as more is known of it by now. It is asked whenever that is
        read, so that the last wait of a run, after which nothing looks at it, is corrected as well."""
        self.kept: dict[Task, float] = {}
        "For how long other tasks kept the event loop while the run was seen to wait for that, in seconds."
        self._seen: dict[Hashable, float] = {}
        "What it was seen in -> the seconds that these samples stand for."
        self._places: dict[Hashable, dict[Hashable, float]] = {}
        "What it was seen in -> the places that were noted with it, and the seconds that each of them stands for."
        self._names: dict[Hashable, Name] = {}
        self._tries: dict[Hashable, int] = {}

    def elapse(self, until_s: float) -> float:
        """Returns: The time since the last sample, in seconds."""
        spent_s = until_s - max(self.last_s, self.started())
        self.last_s = until_s
        if spent_s > 0:
            self.sample_count += 1
        return max(spent_s, 0.0)

    def add(self, key: Hashable, spent_s: float) -> None:
        """Adds seconds to what it was seen in."""
        if key not in self._seen and len(self._seen) >= _MAX_KEYS:
            key = OTHERS
        self._seen[key] = self._seen.get(key, 0.0) + spent_s

    def add_kept(self, kept: Mapping[Task, float], spent_s: float) -> None:
        """Adds for how long tasks kept the event loop while a sample that stands for so many seconds saw it wait."""
        for task, kept_s in kept.items():
            if task[0] != self.thread_id and (task in self.kept or len(self.kept) < _MAX_KEYS):
                self.kept[task] = self.kept.get(task, 0.0) + min(kept_s, spent_s)

    def is_named(self, place: Hashable) -> bool:
        """Returns: Whether a place has its whole name."""
        known = self._names.get(place)
        return known is not None and known.is_whole

    def note(self, key: Hashable, place: Hashable, spent_s: float, name: Callable[[], Name | None]) -> None:
        """Notes at which place it is in what it was seen in.

        Parameters:
          key: What it was seen in.
          place: Tells one wait of that key from another.
          spent_s: The seconds of that key that this stands for: those since the last look at places.
          name: Names the place; None if that failed. It is called once, or a few times until the name is whole.
        """
        places = self._places.get(key)
        if places is None:
            if len(self._places) >= _MAX_KEYS:
                return
            places = self._places[key] = {}
        if place not in places and len(places) >= _MAX_KEYS:
            return
        places[place] = places.get(place, 0.0) + max(spent_s, _LEAST_S)
        if not self.is_named(place) and self._tries.get(place, 0) < _MAX_TRIES:
            self._tries[place] = self._tries.get(place, 0) + 1
            if (found := name()) is not None:
                self._names[place] = found

    def seen(
        self, cpu_s: float | None, steps_s: float | None = None, *, is_queue_counted: bool = True
    ) -> dict[Where, float]:
        """Returns: What the run was seen in off the CPU -> the seconds that these samples stand for.

        Parameters:
          cpu_s: The CPU time of the run meanwhile. The time of a thread on the run queue is counted, that of a
            coroutine is not: it is what it was seen in without a wait, less its CPU time.
          steps_s: How long the steps of a coroutine took, which tells how many samples its CPU time stands for.
          is_queue_counted: Whether the kernel told the time of the thread on the run queue. Otherwise samples without
            a wait, less the CPU time, are of what is not known: they must not count as waits.
        """
        found: dict[Where, float] = {}
        is_async = self.coroutine is not None
        on_cpu_s = (cpu_s or 0.0) * (self.in_steps_s / steps_s if steps_s else 1.0)
        seen, correction = self._seen.copy(), self.correction
        for key, more_s in ({} if correction is None else correction()).items():
            seen[key] = max(seen.get(key, 0.0) + more_s, 0.0)
        for key, seconds in seen.items():
            if key == RUNNING:
                where: Where = ("run_queue" if is_async and cpu_s is not None else "unknown", None)
                seconds = 0.0 if is_queue_counted and not is_async else max(seconds - on_cpu_s, 0.0)
                found[where] = found.get(where, 0.0) + seconds
                continue
            for where, share in self._shares(key).items():
                found[where] = found.get(where, 0.0) + seconds * share
        return found

    def _shares(self, key: Hashable) -> dict[Where, float]:
        """Returns: The names of what it was seen in -> their shares."""
        if key in _NAMES:
            return {_NAMES[key]: 1.0}
        unnamed: Where = ("blocked" if self.coroutine is None else "awaiting", None)
        if key == SLEEP:
            unnamed = "blocked", "sleep"
        places = self._places.get(key, {}).copy()
        whole = sum(places.values())
        shares: dict[Where, float] = {} if whole else {unnamed: 1.0}
        for place, seconds in places.items():
            where = self._names[place].where if place in self._names else unnamed
            shares[where] = shares.get(where, 0.0) + seconds / whole
        return shares
