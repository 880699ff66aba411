"""pyinstrument's own profiler, and what both engines of the time profile have in common."""

from __future__ import annotations

import sys
import time
from typing import Any

from ...errors import SkippedError
from ...runtime.stacks import anchor_of, coroutine_function, root_of
from ...runtime.thread_state import ThreadProfile
from ..base import Collector, Recording, RunContext
from .own_profiler import is_heard, silence
from .session import SessionDict, describe, json_of


class SessionRecording(Recording):
    """What both engines have in common: a session that is written once the run is sealed."""

    runs_inline = True

    def __init__(self, collector: Collector, run: RunContext) -> None:
        self.collector = collector
        self.run = run
        root = root_of(run.actor)
        self.root = f"{run.actor_name}\0\x000" if root is None else describe(root)
        self.native_id = run.native_id
        self.start_time = self.started_s = self.cpu_started_s = 0.0
        self.duration_s = 0.0
        self.cpu_time_s: float | None = None
        "The CPU time of the run's thread; None for an async actor, whose loop works for other tasks as well."
        self.has_own_thread = coroutine_function(run.actor) is None

    def _start_clocks(self) -> None:
        self.started_s = self.run.clock()
        if self.has_own_thread and sys.platform == "linux":
            self.cpu_started_s = _cpu_s(self.native_id)

    def _stop_clocks(self) -> None:
        """Takes the times of the function alone: other collectors may start after this one, and stop before it."""
        run = self.run
        begun_s = max(self.started_s, run.started)
        self.start_time = run.started_at_s + begun_s - run.started
        self.duration_s = max((run.clock() if run.ended is None else run.ended) - begun_s, 0.0)
        if self.has_own_thread and sys.platform == "linux":
            cpu_s = _cpu_s(self.native_id) if run.cpu_ended_s is None else run.cpu_ended_s
            self.cpu_time_s = max(cpu_s - max(self.cpu_started_s, run.cpu_started_s), 0.0)

    def _session(self) -> SessionDict:
        raise NotImplementedError

    def save(self) -> None:
        self._write(self.collector.artifact_name)

    def _write(self, kind: str) -> None:
        self.run.entry.write_file(kind, json_of(self._session()))


class ProfilerRecording(SessionRecording):
    """A recording by pyinstrument's own profiler.

    Parameters:
      profiler: A `pyinstrument.Profiler`.
      collector: The collector.
      run: The run.
    """

    def __init__(self, profiler: Any, collector: Collector, run: RunContext) -> None:
        super().__init__(collector, run)
        self.profiler = profiler
        self.hook = collector.services.profile_hook
        self.settled = False
        self.profile: ThreadProfile | None = None
        self.session: Any = None

    def start(self) -> None:
        if coroutine_function(self.run.actor) is not None:
            raise SkippedError("pyinstrument's own profiler does not see an async actor; the engine `sampler` does.")
        refusal = self.hook.acquire_shared(self, self.run.task_id)
        if refusal is not None:
            raise SkippedError(f"{refusal} With the engine `sampler` both work at once.")
        self._start_clocks()
        try:
            self.profiler.start()
        except Exception:
            self._give_up()
            raise
        if sys.version_info < (3, 12):
            self.profile = ThreadProfile()
        self.settled = True

    def _give_up(self) -> None:
        self.settled = True
        silence(self.profiler)
        self.hook.unshare()

    def end_early(self, reason: str) -> None:
        if self.profile is not None and self.reason is None:
            self._stop_clocks()
            self.profile.remove()
            self.reason = reason

    def stop(self) -> None:
        self.settled = True
        # Not if it was stopped before, or an interrupt came first, or in the middle of it.
        if self.session is None and self.profiler.is_running and is_heard(self.profiler):
            if self.reason is None:
                self._stop_clocks()
            self.session = self.profiler.stop()
        self._give_up()

    def _session(self) -> SessionDict:
        if self.session is None:
            raise SkippedError("The run was interrupted while its profiler was being started or stopped.")
        session: SessionDict = self.session.to_json()
        anchor = describe(anchor_of(self.run.actor)).partition("\x01")[0]
        seconds: dict[tuple[str, ...], float] = {}
        for stack, spent_s in session["frame_records"]:
            identifiers = [frame.partition("\x01")[0] for frame in stack]
            if anchor in identifiers:
                below = (stack[0], *stack[identifiers.index(anchor) + 1 :])
                if len(below) > 1:
                    seconds[below] = seconds.get(below, 0.0) + spent_s
        thread = session["start_call_stack"][0]
        records = [(list(stack), spent_s) for stack, spent_s in seconds.items()]
        records = records or [([thread, self.root], self.duration_s)]
        return {
            **session,
            "frame_records": sorted(records, key=lambda record: record[0]),
            "start_call_stack": [thread, self.root],
            "target_description": f"Task {self.run.task_id}: {self.run.actor_name}",
        }


def _cpu_s(native_id: int) -> float:
    """Returns: The CPU time of a thread in seconds; only Linux tells that of another thread."""
    # The kernel's id of a thread's clock. That of `time.pthread_getcpuclockid` is the same, and asking for it is not
    # safe once the thread has ended; this raises OSError then.
    return time.clock_gettime(~native_id << 3 | 6)
