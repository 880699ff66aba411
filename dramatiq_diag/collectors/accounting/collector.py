"""`accounting`: says where the whole wall time of a task went, in parts that add up to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Coroutine
from typing import Any

from dramatiq.threading import is_gevent_active
from typing_extensions import TypedDict

from ...errors import UnavailableError
from ...runtime.coroutines import CoroutineTracker
from ...runtime.counters import Counters
from ...runtime.stacks import coroutine_function
from ...runtime.thread_state import cpu_s
from ...runtime.ticker import Timer
from ..base import Collector, CollectorSettings, Recording, RunContext, checkpoint_name
from ..event_loop import event_loop_thread
from ..services import Services
from .account import Account, Task
from .arithmetic import PartDocument, Times, divide
from .neighbours import Mark, NativeIds, NeighbourDocument, Neighbours, bounded
from .sampler import AccountSampler

#: Seconds until the first checkpoint. The intervals double from there up to the longest one.
_FIRST_CHECKPOINT_S = 0.5
_CHECKPOINT_INTERVAL_S = 5.0


class AccountingDocument(TypedDict):
    """Where the wall time of a run went."""

    wall_ms: float
    samples: int
    parts: list[PartDocument]
    neighbours: list[NeighbourDocument]


class AccountingCollector(Collector):
    """`accounting`: own CPU time, the garbage collector, and the waits for a CPU, for the GIL and for everything else.

    The sums are counted by the kernel. What is left of the wall time is divided by what a thread of our own sees many
    times a second.
    """

    name = "accounting"
    artifact_name = "time_accounting"
    filename = "accounting.json"
    media_type = "application/json"

    def __init__(self, settings: CollectorSettings) -> None:
        super().__init__(settings)
        if is_gevent_active():
            raise UnavailableError("Under gevent all greenlets share one thread, whose time is not that of one task.")

    def open(self, services: Services) -> None:
        super().open(services)
        native_ids = NativeIds()
        coroutines = services.coroutines
        self.neighbours = Neighbours(
            services.messages, coroutines.measured, native_ids, lambda: _loop_cpu_s(coroutines)
        )
        coroutines.on_end.append(self.neighbours.note_end)
        self.sampler = AccountSampler(
            services.switch_interval,
            self.neighbours,
            native_ids,
            lambda: services.coroutines.thread_id,
            services.warn_once,
        )
        self.sampler.start()

    def close(self) -> None:
        self.sampler.stop()
        if (note_end := self.neighbours.note_end) in (on_end := self.services.coroutines.on_end):
            on_end.remove(note_end)

    def record(self, run: RunContext) -> Recording:
        return _AccountingRecording(self, run)


class _AccountingRecording(Recording):
    """Is late if it begins while the function runs; then it accounts for the time from there on."""

    runs_inline = True

    def __init__(self, collector: AccountingCollector, run: RunContext) -> None:
        self.collector = collector
        self.run = run
        self.services = collector.services
        self.is_async = coroutine_function(run.actor) is not None
        self.is_late = run.is_executing
        self.from_s = 0.0
        "When it began, if it is late."
        self.account = Account(run.thread_id, run.native_id, self._started, self._coroutine if self.is_async else None)
        self.before = self.after = Times(None)
        "What was counted at the start and at the end of a late one."
        self.mark: Mark | None = None
        "What the other tasks had used at the start; None after the end."
        self.neighbours: list[NeighbourDocument] | None = None
        "The other tasks, once the run has ended."
        self.ended_s: float | None = None
        self.timer = Timer(_FIRST_CHECKPOINT_S, self._tick)
        self.lock = threading.Lock()  # A tick may be under way when the run ends.
        self.stopped = False

    def _started(self) -> float:
        if self.is_late:
            return self.from_s
        return self.run.started if self.run.is_executing else float("inf")

    def _coroutine(self) -> Coroutine[Any, Any, Any] | None:
        coroutines = self.services.coroutines
        return coroutines.measured.get(self.run.thread_id) or coroutines.running.get(self.run.thread_id)

    def start(self) -> None:
        if self.is_async:
            self.services.coroutines.watch(event_loop_thread())
        if self.is_late:
            self.from_s = self.services.clock()
            self.before = self._times(self.from_s)  # After the clock, so nothing is counted beyond the time.
        self.mark = self.collector.neighbours.mark()
        self.collector.sampler.add(self.account)
        self.services.ticker.add(self.timer)

    def stop(self) -> None:
        self.stopped = True
        self.timer.cancel()
        self._leave()

    def end_early(self, reason: str) -> None:
        with self.lock:
            self.timer.cancel()
            self._leave()

    def _leave(self) -> None:
        self.collector.sampler.remove(self.account)
        if self.neighbours is None:
            if self.is_late:
                self.after, self.ended_s = self._times_now()
            self.neighbours = self._neighbours()
            self.mark = None

    def _times_now(self) -> tuple[Times, float]:
        """Returns: What is counted now, and the time."""
        after = self._times(self.services.clock())
        return after, self.services.clock()

    def _times(self, until_s: float) -> Times:
        """Returns: What is counted now; any thread may ask.

        Parameters:
          until_s: The time up to which a coroutine that has ended, or not begun, waits for its event loop.
        """
        run = self.run
        if self.is_async:
            measured = self.services.coroutines.measured.get(run.thread_id)
            # After the end it is that of the next run.
            if measured is None or run.ended is not None:
                steps = run.coroutine_steps
            else:
                steps = measured.steps_until(until_s, lambda: _loop_cpu_s(self.services.coroutines))
            if steps is None:
                return Times(None)
            return Times(steps.cpu_s, steps_s=steps.steps_s, loop_wait_s=steps.outside_s(self._started(), until_s))
        found = self.services.counters.read_times(run.thread_id, run.native_id)
        return Times(found.cpu_s, found.run_queue_s, found.gc_s)

    def _spent(self) -> tuple[float, Times]:
        """Returns: The wall time up to now or to the end, and what was counted in it."""
        run = self.run
        if self.is_late:
            after, until_s = self._times_now() if self.ended_s is None else (self.after, self.ended_s)
            return max(until_s - self.from_s, 0.0), after.since(self.before)
        if run.at_call is None:
            return 0.0, Times(0.0)
        before = Times(0.0, steps_s=0.0, loop_wait_s=0.0) if self.is_async else _times_of(run.at_call)
        if run.ended is not None and run.at_return is not None:
            after = self._times(run.ended) if self.is_async else _times_of(run.at_return)
            return run.ended - run.started, after.since(before)
        after = self._times(self.services.clock())
        return run.elapsed_s, after.since(before)

    def so_far(self) -> dict[str, Any] | None:
        if not self.run.is_executing:
            return None
        return {**self._document()}

    def _neighbours(self) -> list[NeighbourDocument]:
        """Returns: What other tasks have used up to now or to the end."""
        mark, listed = self.mark, self.neighbours
        if listed is not None or mark is None:
            return listed or []
        return self.collector.neighbours.listed(mark, self.run.thread_id, self._kept() if self.is_async else None)

    def _kept(self) -> dict[Task, float]:
        """Returns: For how long other tasks kept the event loop while the run waited for it, in seconds."""
        kept, run = self.account.kept.copy(), self.run
        # After the last look, which may have been long ago where a step of another coroutine did not let go of the GIL.
        since_s = max(self.account.last_s, self._started())
        spent_s = max((self.services.clock() if run.ended is None else run.ended) - since_s, 0.0)
        for task, kept_s in self.collector.neighbours.kept_since().items():
            kept[task] = kept.get(task, 0.0) + min(kept_s, spent_s)
        return kept

    def _document(self) -> AccountingDocument:
        wall_s, spent = self._spent()
        is_queue_counted = spent.run_queue_s is not None
        seen = self.account.seen(spent.cpu_s, spent.steps_s, is_queue_counted=is_queue_counted)
        parts = divide(wall_s, spent, seen)
        return {
            "wall_ms": round(wall_s * 1e6) / 1000,
            "samples": self.account.sample_count,
            "parts": parts,
            "neighbours": bounded(self._neighbours(), sum(each["ms"] for each in parts if each["part"] == "loop_wait")),
        }

    def _tick(self) -> None:
        """Writes a checkpoint, for salvage."""
        with self.lock:
            if self.stopped:
                return
            self.timer.interval_s = min(self.timer.interval_s * 2, _CHECKPOINT_INTERVAL_S)
            try:
                self._write(checkpoint_name(self.collector.artifact_name))
            except OSError as error:
                self.services.warn_once("accounting", error, "An account's checkpoint was not written.")

    def _write(self, name: str) -> None:
        self.run.entry.write_file(name, json.dumps(self._document()))

    def save(self) -> None:
        with self.lock:
            self._write(self.collector.artifact_name)

    def discard(self) -> None:
        with self.lock:  # A checkpoint may be being written.
            pass


def _loop_cpu_s(coroutines: CoroutineTracker) -> float | None:
    """Returns: The CPU time of the event loop's thread, in seconds; None where it is not known."""
    native_id = coroutines.native_id
    return None if native_id is None else cpu_s(native_id)


def _times_of(counters: Counters) -> Times:
    return Times(counters.cpu_s, counters.run_queue_s, counters.gc_s)
