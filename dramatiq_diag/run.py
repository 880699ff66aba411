"""One run: start, stop, seal. Each collector is guarded on its own: one that breaks costs itself and nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .bounded import call_bounded
from .collectors.base import Collector, Recording
from .errors import HungError, SkippedError, UnavailableError
from .models import ArtifactStatus, RunStatus
from .tracebacks import Traceback, take_traceback, traceback_text
from .vitals import Vitals

if TYPE_CHECKING:
    from dramatiq import Actor
    from dramatiq.broker import MessageProxy

    from .process import Process
    from .selection import Choice

#: How many task ids a run remembers of those that ran beside it.
_MAX_OVERLAPPED = 100

#: Seconds that a step of a collector may take, where it is not a quick one.
STEP_TIMEOUT_S = 2.0

#: What a collector may raise without harm to the task. Dramatiq's interrupts are for the task, and pass.
GUARDED = (Exception, SystemExit)


class Run:
    """One attempt to execute a task, while it is being executed.

    Parameters:
      process: The worker process.
      message: Dramatiq's message.
      actor: The actor that is called.
      choice: What was selected.
    """

    def __init__(self, process: Process, message: MessageProxy, actor: Actor[..., Any], choice: Choice) -> None:
        self.process = process
        self.choice = choice
        self.collectors = choice.collectors
        self.actor = actor
        self.entry = process.spool.entry()
        self.run_id = self.entry.run_id
        self.task_id: str = message.message_id
        self.actor_name: str = message.actor_name
        self.queue_name: str = message.queue_name
        self.thread_id = threading.get_ident()
        self.started_at = datetime.now(UTC)
        self.started = time.perf_counter()
        self.overlapped: dict[str, None] = {}
        self.sealed = False
        self.enter_error: Exception | None = None
        self._traceback: Traceback | None = None
        self._recordings: list[tuple[Collector, Recording]] = []
        self._unsaved: list[tuple[Collector, Recording]] = []
        self.entry.append({"run": self._start_record()})

    def _start_record(self) -> dict[str, Any]:
        return {
            "run_id": str(self.run_id),
            "task_id": self.task_id,
            "actor_name": self.actor_name,
            "queue_name": self.queue_name,
            "started_at": self.started_at.isoformat(),
            "hostname": self.process.hostname,
            "pid": self.process.pid,
            **self.choice.links(),
            "artifacts": [
                {
                    "name": collector.artifact_name,
                    "filename": collector.filename,
                    "media_type": collector.media_type,
                    "stored_as": collector.stored_as,
                }
                for collector in self.collectors
            ],
        }

    def start(self) -> Iterator[Callable[[], object]]:
        """Starts the collectors, and writes the entry; the function is called right after.

        Yields what Dramatiq's hook has to call itself, see `Recording.enter`; what that raises goes into `enter_error`.
        """
        for collector in self.collectors:
            try:
                if self.process.spool.full:
                    raise SkippedError("The spool is full; see DRAMATIQ_DIAG_SPOOL_MAX_BYTES.")
                if collector in self.process.hung:
                    raise SkippedError("It hung in another run of this process.")
                recording = collector.record(self)
                self._recordings.append((collector, recording))  # First: `stop` ends what an interrupt cut short.
                self._call(collector, recording, recording.start)
                if recording.enter is not None:
                    self.enter_error = None
                    yield recording.enter
                    recording.entered(self.enter_error)
            except UnavailableError as error:
                self._append_outcome(collector, ArtifactStatus.UNAVAILABLE, str(error))
            except SkippedError as error:
                self._drop(collector)
                self._append_outcome(collector, ArtifactStatus.SKIPPED, str(error))
            except GUARDED as error:
                self._drop(collector)
                self._lost(collector, "start", error)
        self.entry.write()
        self.started = time.perf_counter()

    def _drop(self, collector: Collector) -> None:
        self._recordings = [(other, recording) for other, recording in self._recordings if other is not collector]

    def stop(self, status: RunStatus, exception: BaseException | None = None) -> None:
        """Stops the collectors and seals the entry; runs again from where it was after an interrupt struck in it."""
        duration_ms = (time.perf_counter() - self.started) * 1000
        self.entry.hold()
        while self._recordings:
            collector, recording = self._recordings[-1]
            try:
                self._call(collector, recording, recording.stop)
                self._unsaved.append((collector, recording))
            except GUARDED as error:
                self._lost(collector, "stop", error)
            self._recordings.pop()
        if not self.sealed:
            if exception is not None:
                self._take_traceback(exception)
            self.entry.append({"end": self._end_record(status, duration_ms, exception)})
            self.entry.write()
            self.sealed = True

    def _take_traceback(self, exception: BaseException) -> None:
        try:
            self._traceback = take_traceback(exception)
        except GUARDED as error:
            self._lost_traceback(error)

    def _end_record(self, status: RunStatus, duration_ms: float, exception: BaseException | None) -> dict[str, Any]:
        return {
            "status": status,
            "finished_at": datetime.now(UTC).isoformat(),
            "duration_ms": round(duration_ms, 3),
            "exception_type": None if exception is None else type(exception).__qualname__,
            "exception_message": None if exception is None else _text_of(exception),
            "overlapped_task_ids": list(self.overlapped),
        }

    def save(self) -> None:
        """Lets each recording leave its file. Runs on the sealer's thread, once the run is sealed."""
        for collector, recording in self._unsaved:
            try:
                self._call(collector, recording, recording.save)
                if recording.reason is not None:
                    self._append_outcome(collector, ArtifactStatus.PARTIAL, recording.reason)
            except SkippedError as error:
                self._append_outcome(collector, ArtifactStatus.SKIPPED, str(error))
            except GUARDED as error:
                self._lost(collector, "save", error)
        self._unsaved.clear()
        if self._traceback is not None:
            self._save_traceback(self._traceback)
            self._traceback = None
        self.entry.close()

    def _save_traceback(self, traceback: Traceback) -> None:
        try:
            self.entry.append({"traceback": traceback_text(traceback)})
        except GUARDED as error:
            self._lost_traceback(error)

    def _lost_traceback(self, error: BaseException) -> None:
        self.process.warn_once(("traceback", type(error)), error, "The traceback of a failed run was lost.")

    def _call(self, collector: Collector, recording: Recording, step: Callable[[], None]) -> None:
        if recording.quick:
            step()
            return
        if collector in self.process.hung:
            raise HungError("It hung in another run of this process.")
        try:
            call_bounded(step, STEP_TIMEOUT_S)
        except HungError:
            self.process.hung.add(collector)
            raise

    def overlap(self, task_id: str) -> None:
        """Remembers a task that the same process runs meanwhile."""
        if len(self.overlapped) < _MAX_OVERLAPPED and task_id != self.task_id:
            self.overlapped[task_id] = None

    def append_text(self, collector: Collector, text: str, *, peak_rss_bytes: int | None = None) -> None:
        """Appends to an artifact that is text by the line; it is in the spool when this returns."""
        record: dict[str, Any] = {"to": collector.artifact_name, "text": text}
        if peak_rss_bytes is not None:
            record["peak_rss_bytes"] = peak_rss_bytes
        self.entry.append(record)

    def append_vitals(self, vitals: Vitals) -> None:
        """Notes how the process stands while the run runs, and what ran beside it so far."""
        self.entry.append({"vitals": vitals.model_dump(), "overlapped_task_ids": list(self.overlapped)})

    def _append_outcome(self, collector: Collector, status: ArtifactStatus, reason: str) -> None:
        self.entry.append({"artifact": collector.artifact_name, "status": status, "reason": reason})

    def _lost(self, collector: Collector, step: str, error: BaseException) -> None:
        text = "The collector %r failed to %s and was left out."
        self.process.warn_once((collector.name, step, type(error)), error, text, collector.name, step)
        self._append_outcome(collector, ArtifactStatus.FAILED, f"{type(error).__name__} at {step}: {_text_of(error)}")


def _text_of(error: BaseException) -> str:
    """Returns: The text of an exception, whose `__str__` may itself raise."""
    try:
        return str(error)[:2000]
    except GUARDED as broken:
        return f"<its text could not be made: {type(broken).__name__}>"
