"""The engine `profiler`: pyinstrument's own profiler, ended whatever state an interrupt left it in."""

from __future__ import annotations

import sys
from typing import Any

from ...errors import SkippedError
from ...runtime.profile_function import ThreadProfileFunction
from ...runtime.stacks import LOG_CODE, anchor_of, coroutine_function
from ..base import Collector, RunContext
from .session import SessionDict, SessionRecording, identify


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
        self.profile: ThreadProfileFunction | None = None
        self.session: Any = None

    def start(self) -> None:
        if coroutine_function(self.run.actor) is not None:
            raise SkippedError("pyinstrument's own profiler does not see an async actor; the engine `sampler` does.")
        reason = self.hook.acquire_shared(self, self.run.task_id)
        if reason is not None:
            raise SkippedError(f"{reason} With the engine `sampler` both work at once.")
        self._start_clocks()
        try:
            self.profiler.start()
        except Exception:
            self._give_up()
            raise
        if sys.version_info < (3, 12):
            self.profile = ThreadProfileFunction()
        self.settled = True

    def _give_up(self) -> None:
        self.settled = True
        _silence(self.profiler)
        self.hook.release_shared()

    def end_early(self, reason: str) -> None:
        if self.profile is not None and self.reason is None:
            self._stop_clocks()
            self.profile.remove()
            self.reason = reason

    def stop(self) -> None:
        self.settled = True
        # Not if it was stopped before, or an interrupt struck before its stop or within it.
        if self.session is None and self.profiler.is_running and _is_heard(self.profiler):
            if self.reason is None:
                self._stop_clocks()
            self.session = self.profiler.stop()
        self._give_up()

    def _session(self) -> SessionDict:
        if self.session is None:
            raise SkippedError("The run was interrupted while its profiler was being started or stopped.")
        session: SessionDict = self.session.to_json()
        anchor, log = identify(anchor_of(self.run.actor)), identify(LOG_CODE)
        seconds: dict[tuple[str, ...], float] = {}
        for stack, spent_s in session["frame_records"]:
            identifiers = [frame.partition("\x01")[0] for frame in stack]
            if anchor in identifiers:
                first = identifiers.index(anchor) + 1
                below = (stack[0], *stack[first:])
                if len(below) > 1 and identifiers[first] != log:
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


def tolerant(profiler_class: Any) -> Any:
    """Returns: A subclass of `pyinstrument.Profiler` that takes no harm from an interrupt in its start or its stop.

    After such an interrupt samples arrive that pyinstrument's class does not expect: it raises an error in the task.
    """

    class TolerantProfiler(profiler_class):  # type: ignore[misc]
        def _sampler_saw_call_stack(self, *sample: Any) -> None:
            if self.is_running:
                super()._sampler_saw_call_stack(*sample)

    return TolerantProfiler


def _is_heard(profiler: Any) -> bool:
    """Returns: Whether a `pyinstrument.Profiler` receives the samples of this thread."""
    from pyinstrument.stack_sampler import get_stack_sampler

    target = profiler._sampler_saw_call_stack
    return any(subscriber.target == target for subscriber in get_stack_sampler().subscribers)


def _silence(profiler: Any) -> None:
    """Undoes `Profiler.start` on this thread, as far as it came; may be called again after an interrupt in it.

    pyinstrument undoes nothing when an exception cuts its start or stop short. Then each later profiler of the thread
    fails with "There is already a profiler running", and each call on the thread is as slow as under a profiler.
    """
    from pyinstrument.stack_sampler import active_profiler_context_var, get_stack_sampler

    target = profiler._sampler_saw_call_stack
    if active_profiler_context_var.get() == target:
        active_profiler_context_var.set(None)
    sampler: Any = get_stack_sampler()
    sampler.subscribers[:] = [subscriber for subscriber in sampler.subscribers if subscriber.target != target]
    sampler._update()  # Removes the profile function if no subscriber is left.
