"""Notes which runs grow the process while it nears a limit of memory, so that its death can be explained."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import CodeType

from ..collectors.services import Services
from ..runtime.growth_moments import Growth, Moment
from ..runtime.innermost import Calls, Where, take_calls
from ..runtime.memory_growth import MemoryGrowth
from ..runtime.memory_state import NEAR, MemoryState, MemoryStateReader
from ..runtime.stacks import anchor_of
from ..spool.directory import Spool
from ..spool.memory_story import MAX_CALLS, MAX_NAME, MAX_RUNS, MemoryStory, NotedCall, NotedRun
from ..store.values import clean_text
from .run import Run
from .touched_memory import Part, TouchedMemory
from .tuning import Tuning

#: A process is looked at closely if it would reach a limit in so many looks with the growth of the last one in each.
_LOOKS_LEFT = 20

#: For how long it is, in seconds.
_ALERT_S = 1.0

#: A change of the RSS that is worth a note, in bytes.
_CHANGE_BYTES = 1024 * 1024

#: A look that is early by so many seconds still counts.
_SLACK_S = 0.02

#: A run is met once it has lasted for so long, in seconds: most runs are over before.
_MET_S = 0.05


class GrowthWatch:
    """Notes the memory of the runs of a process. All on the ticker's thread.

    A note reads first, without giving up the GIL, and then writes: with many busy threads it takes long to get it back.

    Parameters:
      memory: Reads the state of the process's memory.
      touched: Counts what each run has touched.
      now: Gives seconds since the epoch.
    """

    def __init__(
        self,
        services: Services,
        spool: Spool,
        memory: MemoryStateReader,
        tuning: Tuning,
        *,
        touched: TouchedMemory | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._services = services
        self._spool = spool
        self._memory = memory
        self._near_s = tuning.near_s
        self._touched = touched or TouchedMemory()
        self._now = now
        self._growth = MemoryGrowth()
        self._state: MemoryState | None = None
        "The last one."
        self._rss_bytes = 0
        "At the last look."
        self._alert_until = 0.0
        self._noted_at = 0.0

    def rest(self) -> None:
        """Forgets what was seen: no run is left."""
        self._state = None
        self._growth.clear()
        self._touched.clear()

    def look(self, runs: Sequence[Run], rss_bytes: int) -> None:
        """Takes a note if the process is near a limit and grows, or grows so fast that it soon will be."""
        self._meet(run for run in runs if run.elapsed_s >= _MET_S)
        state, grown_bytes, self._rss_bytes = self._state, rss_bytes - self._rss_bytes, rss_bytes
        if state is None:
            self._note_first(runs)
        elif self._is_due(state, rss_bytes - state.rss_bytes, grown_bytes):
            self._note(runs, self._memory.read_again(state), closely=True)

    def _meet(self, runs: Iterable[Run]) -> None:
        for run in runs:
            if run.run_id not in self._touched and self._is_alone(run):
                self._touched.meet(run.run_id, run.native_id, run.touched_at_call_bytes)

    def _note_first(self, runs: Sequence[Run]) -> None:
        """Takes the first note; a task that fills the memory in its first moments may not live to see another one."""
        began = [run for run in runs if run.first_rss_bytes is not None and run.run_id in self._touched]
        state = self._memory.read()
        if not began:
            self.note(runs, state)
            return
        first = min(began, key=lambda run: run.started)
        before_bytes = first.first_rss_bytes or 0
        touched = dict.fromkeys((*(run.run_id for run in began), *Part), 0)
        self._growth.add(Moment(first.started, before_bytes, touched, is_partial=True))
        grown_bytes = state.rss_bytes - before_bytes
        if grown_bytes >= _CHANGE_BYTES and grown_bytes * _LOOKS_LEFT > state.room_bytes():
            self._alert_until = self._services.clock() + _ALERT_S
        self.note(runs, state)

    def _is_due(self, state: MemoryState, since_bytes: int, grown_bytes: int) -> bool:
        """Returns: Whether a note is to be taken.

        Parameters:
          state: That of the last note.
          since_bytes: By how much the RSS has grown since.
          grown_bytes: By how much since the last look.
        """
        now = self._services.clock()
        if grown_bytes >= _CHANGE_BYTES and grown_bytes * _LOOKS_LEFT > state.room_bytes() - since_bytes:
            self._alert_until = now + _ALERT_S
            return True
        is_close = now < self._alert_until or since_bytes >= state.room_bytes(NEAR)
        return is_close and now >= self._noted_at + self._near_s - _SLACK_S and abs(since_bytes) >= _CHANGE_BYTES

    def note(self, runs: Sequence[Run], state: MemoryState) -> None:
        """Takes the note of each second, with a state that was just read."""
        is_near = state.room_bytes(NEAR) <= 0 or self._services.clock() < self._alert_until
        self._note(runs, state, closely=is_near)

    def _note(self, runs: Sequence[Run], state: MemoryState, *, closely: bool) -> None:
        self._state, self._noted_at = state, self._services.clock()
        on_loop = self._services.coroutines.running
        where = {run.run_id: Where(run.thread_id, on_loop.get(run.thread_id), anchor_of(run.actor)) for run in runs}
        calls = take_calls(where, self._services.coroutines.thread_id) if closely else {}
        executed = [run_id for run_id, found in calls.items() if found.is_current]
        self._meet(run for run in runs if run.is_executing)  # What they have touched is not that of other threads.
        touched = self._touched.look(self._threads(runs), executed)
        self._growth.add(Moment(self._noted_at, state.rss_bytes, touched))
        growth = self._growth.find() if closely else None
        self._spool.write_story(self._story(runs, state, growth, calls))

    def _is_alone(self, run: Run) -> bool:
        return run.thread_id not in self._services.coroutines.running

    def _threads(self, runs: Sequence[Run]) -> dict[int, list[Hashable]]:
        """Returns: Native id of each thread that executes runs -> these."""
        threads: dict[int, list[Hashable]] = {}
        for run in runs:
            native_id = run.native_id if self._is_alone(run) else self._loop_native_id()
            threads.setdefault(native_id, []).append(run.run_id)
        if set(self._services.coroutines.running) - {run.thread_id for run in runs}:
            threads.setdefault(self._loop_native_id(), []).append(Part.OTHER)
        return threads

    def _loop_native_id(self) -> int:
        return self._services.coroutines.native_id or 0

    def _story(
        self, runs: Sequence[Run], state: MemoryState, growth: Growth | None, calls: Mapping[uuid.UUID, Calls]
    ) -> MemoryStory:
        growth = None if growth is None else _while_they_ran(runs, growth)
        growers: Mapping[Hashable, float] = {} if growth is None else growth.growers
        noted = sorted(
            (self._noted(run, growth, calls) for run in runs),
            key=lambda note: (note.bytes_per_s or 0.0, note.touched_bytes or 0),
            reverse=True,
        )
        return MemoryStory(
            number=0,
            at=self._now(),
            state=state,
            seconds=None if growth is None else growth.seconds,
            bytes_per_s=None if growth is None else growth.grown_bytes / growth.seconds,
            highest_rss_bytes=self._growth.highest_bytes(growers),
            shared_grows=Part.SHARED in growers,
            other_grows=Part.OTHER in growers,
            runs=noted[:MAX_RUNS],
        )

    def _noted(self, run: Run, growth: Growth | None, calls: Mapping[uuid.UUID, Calls]) -> NotedRun:
        known = NotedRun(
            run_id=run.run_id,
            touched_bytes=self._touched.bytes_of(run.run_id),
            shares_thread=self._touched.shares_thread(run.run_id),
        )
        if growth is None or run.run_id not in growth.growers:
            return known
        places = calls[run.run_id].places if run.run_id in calls else ()
        seconds = _at_most(growth.seconds, run.elapsed_s)
        changes = {
            "bytes_per_s": growth.growers[run.run_id] / seconds,
            "seconds": seconds,
            "task_id": clean_text(run.task_id, MAX_NAME),
            "actor_name": clean_text(run.actor_name, MAX_NAME),
            "calls": [_noted_call(*place) for place in places[:MAX_CALLS]],
        }
        return known.model_copy(update=changes)


def _while_they_ran(runs: Sequence[Run], growth: Growth) -> Growth:
    """Returns: A growth over no more time than its runs have lasted: the moment before them may be a second earlier."""
    elapsed_s: dict[Hashable, float] = {run.run_id: run.elapsed_s for run in runs}
    if not growth.growers or not growth.growers.keys() <= elapsed_s.keys():
        return growth
    return replace(growth, seconds=_at_most(growth.seconds, max(elapsed_s[run_id] for run_id in growth.growers)))


def _at_most(growth_s: float, elapsed_s: float) -> float:
    """Returns: The seconds of a growth, no more than a run has lasted; one that is not called yet does not count."""
    return min(growth_s, elapsed_s) or growth_s


def _noted_call(code: CodeType, line: int | None) -> NotedCall:
    function, file = clean_text(code.co_qualname, MAX_NAME), clean_text(code.co_filename)[-MAX_NAME:]
    return NotedCall(function=function, file=file, line=line or 0)
