"""Starts collectors in the middle of a run, when one of its triggers fires: each once, on the ticker's thread."""

from __future__ import annotations

from dramatiq.asyncio import get_event_loop_thread

from ..collectors.base import Collector
from ..collectors.names import STACKS
from ..errors import GUARDED
from ..policy.trigger_rules import Trigger
from ..policy.triggers import Plan
from ..runtime.stack_dump import dump_stacks
from ..runtime.stacks import coroutine_function
from ..statuses import ArtifactStatus
from .late_recordings import LateRecordings
from .run import Run


class LateStart:
    """The triggers of one run, and the collectors that they have started."""

    def __init__(self, run: Run, plan: Plan) -> None:
        self.run = run
        self.plan = plan
        self._waiting = list(plan.triggers)
        self._late = LateRecordings(run.recordings, run)
        self.begun = self._late.begun
        self.wrote_stacks = False

    def arm(self) -> None:
        """Has the coroutine of an async actor noticed. Runs on the task's thread, right before its function."""
        try:
            if coroutine_function(self.run.actor) is not None and (loop_thread := get_event_loop_thread()) is not None:
                self.run.services.coroutines.watch(loop_thread)
        except GUARDED as error:
            self._warn(error)

    def end(self) -> None:
        """Starts nothing from now on, and writes the outcome of each collector that was not started.

        Runs on the task's thread and waits for no start. After an interrupt it runs again from its beginning.
        """
        begun = self._late.end()
        for collector in self.plan.collectors:
            if collector.name not in begun:
                self._not_begun(collector)
            elif not begun[collector.name]:
                reason = "The run ended while its trigger was starting it."
                self.run.recordings.append_outcome(collector, ArtifactStatus.SKIPPED, reason)
        if self.plan.log is not None and self.plan.log_is_own and not self.wrote_stacks:
            self._not_begun(self.plan.log)

    def _not_begun(self, collector: Collector) -> None:
        conditions = self.plan.conditions(collector.name)
        reason = f"Its trigger did not fire: {conditions}."
        self.run.recordings.append_outcome(collector, ArtifactStatus.SKIPPED, reason)

    # The rest runs on the ticker's thread.

    def look(self, rss_bytes: int) -> None:
        """Fires the triggers that are met, with this RSS of the process."""
        if self.run.is_executing and not self._late.is_ended:
            elapsed_s = self.run.elapsed_s
            for trigger in [trigger for trigger in self._waiting if trigger.is_met(elapsed_s, rss_bytes)]:
                self._waiting.remove(trigger)
                try:
                    self._fire(trigger)
                except GUARDED as error:
                    self._warn(error)

    def _warn(self, error: BaseException) -> None:
        self.run.services.warn_once(("trigger", type(error)), error, "A trigger was lost.")

    def _fire(self, trigger: Trigger) -> None:
        if STACKS in trigger.names and self.plan.log is not None:
            self._write_stacks(self.plan.log, trigger)
        for collector in self.plan.collectors:
            if collector.name in trigger.names:
                self._late.begin(collector)

    def _write_stacks(self, log: Collector, trigger: Trigger) -> None:
        run = self.run
        occasion = f"{run.elapsed_s:.3f} s after the start of the task ({trigger.condition})"
        text = dump_stacks(run.thread_id, run.coroutine, run.services.coroutines.thread_id, occasion)

        def write() -> None:
            run.append_text(log, text)
            self.wrote_stacks = True

        self._late.unless_ended(write)
