"""Starts collectors in the middle of a run, when one of its triggers fires: each once, on the ticker's thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from dramatiq.asyncio import get_event_loop_thread

from ..collectors.base import Collector, Recording
from ..collectors.names import STACKS
from ..errors import GUARDED
from ..policy.trigger_rules import Trigger
from ..policy.triggers import Plan
from ..runtime.stack_dump import dump_stacks
from ..runtime.stacks import coroutine_function
from ..runtime.ticker import Timer
from ..statuses import ArtifactStatus
from .run import Run

#: Seconds between checks of the triggers; one that is due sooner than this has a timer of its own.
LOOK_INTERVAL_S = 1.0


class LateStart:
    """The triggers of one run, and the collectors that they have started.

    Parameters:
      run: The run.
      plan: Its triggers, and the collectors that they may start.
    """

    def __init__(self, run: Run, plan: Plan) -> None:
        self.run = run
        self.plan = plan
        self._waiting = list(plan.triggers)
        self._timers: list[Timer] = []
        self._begun: dict[str, bool] = {}
        "Name of a collector that a trigger started -> whether its start has ended, with or without an error."
        self._wrote_stacks = False
        self._lock = threading.Lock()
        "Never held during a collector's start, which may take long: the task's thread takes it in `end`."
        self._ended = False

    def arm(self) -> None:
        """Adds timers for the triggers that are due soon. Runs on the task's thread, right before its function."""
        try:
            if coroutine_function(self.run.actor) is not None:
                self._follow_coroutine()
            for trigger in self._waiting:
                if trigger.after_s is not None and trigger.after_s < LOOK_INTERVAL_S:
                    timer = Timer(max(trigger.after_s, 0.001), lambda: None)
                    timer.call = partial(self._ring, timer, trigger)
                    self._timers.append(timer)
                    self.run.services.ticker.add(timer)
        except GUARDED as error:
            self._warn(error)

    def _follow_coroutine(self) -> None:
        loop_thread = get_event_loop_thread()
        if loop_thread is not None:
            self.run.services.coroutines.on_next(loop_thread, self._found_coroutine)

    def _found_coroutine(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.run.coroutine = coroutine

    def end(self) -> None:
        """Starts nothing from now on, and writes the outcome of each collector that was not started.

        Runs on the task's thread and waits for no start. After an interrupt it runs again from its beginning.
        """
        for timer in self._timers:
            timer.cancel()
        with self._lock:
            self._ended = True
            begun = dict(self._begun)
        self.run.coroutine = None
        if coroutine_function(self.run.actor) is not None:
            self.run.services.coroutines.forget()
        for collector in self.plan.collectors:
            if collector.name not in begun:
                self._not_begun(collector)
            elif not begun[collector.name]:
                reason = "The run ended while its trigger was starting it."
                self.run.recordings.append_outcome(collector, ArtifactStatus.SKIPPED, reason)
        if self.plan.log is not None and self.plan.log_is_own and not self._wrote_stacks:
            self._not_begun(self.plan.log)

    def _not_begun(self, collector: Collector) -> None:
        conditions = self.plan.conditions(collector.name)
        reason = f"Its trigger did not fire: {conditions}."
        self.run.recordings.append_outcome(collector, ArtifactStatus.SKIPPED, reason)

    # The rest runs on the ticker's thread.

    def look(self, rss_bytes: int) -> None:
        """Fires the triggers that are met, with this RSS of the process."""
        if self.run.is_executing and not self._ended:
            elapsed_s = self.run.elapsed_s
            for trigger in [trigger for trigger in self._waiting if trigger.is_met(elapsed_s, rss_bytes)]:
                self._guarded(partial(self._fire, trigger))

    def _ring(self, timer: Timer, trigger: Trigger) -> None:
        timer.cancel()  # A timer repeats.
        self._guarded(partial(self._fire, trigger))

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except GUARDED as error:
            self._warn(error)

    def _warn(self, error: BaseException) -> None:
        self.run.services.warn_once(("trigger", type(error)), error, "A trigger was lost.")

    def _fire(self, trigger: Trigger) -> None:
        if self._ended or trigger not in self._waiting:  # `look` may have fired it.
            return
        self._waiting.remove(trigger)
        if STACKS in trigger.names and self.plan.log is not None:
            self._write_stacks(self.plan.log, trigger)
        for collector in self.plan.collectors:
            if collector.name in trigger.names:
                self._begin(collector)

    def _write_stacks(self, log: Collector, trigger: Trigger) -> None:
        run = self.run
        occasion = f"{run.elapsed_s:.3f} s after the start of the task ({trigger.condition})"
        text = dump_stacks(run.thread_id, run.coroutine, run.services.coroutines.thread_id, occasion)
        with self._lock:
            if not self._ended:
                self.run.append_text(log, text)
                self._wrote_stacks = True

    def _begin(self, collector: Collector) -> None:
        """Starts a collector. If the run ends during the start, the recording is stopped and leaves nothing."""
        with self._lock:
            if self._ended or collector.name in self._begun:
                return
            self._begun[collector.name] = False
        recording: Recording | None = None
        failure: BaseException | None = None
        try:
            recording = self.run.recordings.record(self.run, collector)
            self._start(collector, recording)
        except GUARDED as error:
            failure = error
        with self._lock:
            self._begun[collector.name] = True
            if not self._ended and failure is not None:
                self.run.recordings.not_started(collector, failure)
            elif not self._ended and recording is not None:
                self.run.recordings.join(collector, recording)
                return
        if recording is not None:
            self._take_back(collector, recording)

    def _start(self, collector: Collector, recording: Recording) -> None:
        self.run.recordings.call(collector, recording, recording.start)
        if recording.enter is not None:
            raised: Exception | None = None
            try:
                recording.enter()
            except Exception as error:  # noqa: BLE001 - the recording decides.
                raised = error
            recording.entered(raised)

    def _take_back(self, collector: Collector, recording: Recording) -> None:
        """Stops a recording that started in part, or too late, and removes its files."""
        try:
            self.run.recordings.call(collector, recording, recording.stop)
        finally:
            self.run.recordings.call(collector, recording, recording.discard)
            self.run.recordings.remove_files(collector)
