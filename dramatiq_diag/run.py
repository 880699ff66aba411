"""One run: start, stop, seal. Each collector is guarded on its own: one that breaks costs itself and nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .asking import task_id_of
from .bounded import call_bounded
from .collectors.base import Collector, Recording
from .entry import checkpoint_kind
from .errors import GUARDED, HungError, SkippedError, UnavailableError
from .models import ArtifactStatus, RunStatus
from .rules import Facts
from .run_records import MAX_OVERLAPPED, cut_id, end_record, start_record, text_of
from .tracebacks import Traceback, take_traceback, traceback_text
from .vitals import Vitals

if TYPE_CHECKING:
    from dramatiq import Actor
    from dramatiq.broker import MessageProxy

    from .late import Late
    from .process import Process
    from .selection import Choice
    from .triggers import Plan

#: A longer text goes into the entry in pieces, in characters: its lines are read one at a time.
_MAX_TEXT_LENGTH = 64 * 1024

#: The entry gets a peak that is larger than the one it has by this factor: a task that grows leaves a bounded entry.
_NOTED_GROWTH = 1.01

#: Seconds that a step of a collector may take, where it is not a quick one.
STEP_TIMEOUT_S = 2.0


class Run:
    """One attempt to execute a task, while it is being executed.

    Parameters:
      process: The worker process.
      message: Dramatiq's message.
      actor: The actor that is called.
      choice: What was selected.
      plan: What may begin while it runs.
    """

    def __init__(
        self,
        process: Process,
        message: MessageProxy,
        actor: Actor[..., Any],
        choice: Choice,
        plan: Plan | None = None,
    ) -> None:
        self.process = process
        self.choice = choice
        self.collectors = choice.collectors
        self.actor = actor
        self.clock = process.clock
        self.made = process.clock()
        self.entry = process.spool.entry()
        self.run_id = self.entry.run_id
        self.task_id = task_id_of(message)
        self.actor_name: str = message.actor_name
        self.queue_name: str = message.queue_name
        self.thread_id = threading.get_ident()
        self.native_id = threading.get_native_id()
        self.thread_name = threading.current_thread().name
        self.started_at_s = time.time()
        "When its function was called, in seconds since the epoch; until then, when the run was made."
        self.started = self.made
        "The same by `clock`."
        self.ended: float | None = None
        "When its function had ended, by `clock`; None before that."
        self.cpu_started_s = time.thread_time()
        "The CPU time of the thread when the function was called."
        self.cpu_ended_s: float | None = None
        self.overlapped: dict[str, None] = {}
        self._noted_overlapped = 0
        "How many of them the entry has."
        self.sealed = False
        self.taken = False
        "Whether the sealer has it."
        self.enter_error: Exception | None = None
        self.is_executing = False
        "Whether its function has been called: what begins now begins late, and on another thread."
        self.coroutine: Coroutine[Any, Any, Any] | None = None
        "That of an async actor, once it is known and while something may begin late."
        self.late: Late | None = None
        "Begins what the plan has, when it is due."
        self.dropped: Sequence[str] | None = None
        "The keep rules none of which held; None for a run that is kept."
        self.first_rss_bytes: int | None = None
        "The RSS before the collectors started; None where it could not be read."
        self.last_rss_bytes: int | None = None
        "The RSS when the function had ended; None before that."
        self._looked_rss_bytes = 0
        "The largest RSS of the looks in between. Each of the three is written by one thread alone."
        self._noted_peak_bytes = 0
        "The peak that the entry has."
        self._followers: list[Callable[[int], None]] = []
        self._traceback: Traceback | None = None
        self._recordings: list[tuple[Collector, Recording]] = []
        self._unsaved: list[tuple[Collector, Recording]] = []
        late = () if plan is None else plan.declared
        names = {collector.artifact_name for collector in late}
        self.denied = {denied: why for denied, why in choice.denied.items() if denied.artifact_name not in names}
        "What was asked for and is not allowed -> why."
        self.entry.append({"run": start_record(self, (*self.collectors, *late, *self.denied))})

    @property
    def started_at(self) -> datetime:
        """When its function was called."""
        return datetime.fromtimestamp(self.started_at_s, UTC)

    @property
    def elapsed_s(self) -> float:
        """For how many seconds its function has been running, or had been when it ended; 0 before it is called."""
        if not self.is_executing:
            return 0.0
        return (self.clock() if self.ended is None else self.ended) - self.started

    @property
    def duration_ms(self) -> float:
        """The time of its function alone, once it has ended."""
        return self.elapsed_s * 1000

    @property
    def finished_at_s(self) -> float:
        """When its function had ended, in seconds since the epoch."""
        return self.started_at_s + self.elapsed_s

    @property
    def collection_ms(self) -> float:
        """What the collectors have taken of the task's thread so far, before its function and after it."""
        return (self.clock() - self.made - self.elapsed_s) * 1000

    @property
    def peak_rss_bytes(self) -> int | None:
        """The largest RSS that was seen; None where nobody could look."""
        return max(self.first_rss_bytes or 0, self._looked_rss_bytes, self.last_rss_bytes or 0) or None

    def start(self) -> Iterator[Callable[[], object]]:
        """Starts the collectors, and writes the entry; the function is called right after.

        Yields what Dramatiq's hook has to call itself, see `Recording.enter`; what that raises goes into `enter_error`.
        """
        self.first_rss_bytes = self._read_rss()
        for denied, reason in self.denied.items():
            self.append_outcome(denied, ArtifactStatus.SKIPPED, reason)
        for collector in self.collectors:
            try:
                recording = self.record(collector)
                self.join(collector, recording)  # First: `stop` ends what an interrupt cut short.
                self.call(collector, recording, recording.start)
                if recording.enter is not None:
                    self.enter_error = None
                    yield recording.enter
                    recording.entered(self.enter_error)
                    self.enter_error = None  # It holds frames, and they the recording.
            except GUARDED as error:
                self._drop(collector)
                self.enter_error = None
                self.not_started(collector, error)
        # For a run whose worker dies: it has no record of its end.
        collection_ms = round((self.clock() - self.made) * 1000, 3)
        self.entry.append({"called": {"started_at": time.time(), "collection_ms": collection_ms}})
        self.entry.write()
        self.started_at_s, self.cpu_started_s, self.started = time.time(), time.thread_time(), self.clock()
        self.is_executing = True
        if self.late is not None:
            self.late.arm()

    def record(self, collector: Collector) -> Recording:
        """Makes a recording. Raises: SkippedError, or what the collector raises."""
        if self.process.spool.full or self.entry.is_declined:
            raise SkippedError("The spool is full; see DRAMATIQ_DIAG_SPOOL_MAX_BYTES.")
        if collector in self.process.hung:
            raise SkippedError("It hung in another run of this process.")
        if (refusal := self.choice.refusals.get(collector.name)) is not None:
            raise SkippedError(refusal)
        return collector.record(self)

    def options(self, collector: Collector) -> Any:
        """Returns: The options of a collector in this run, an `Options` of its own class."""
        return self.choice.options.get(collector.name, collector.default_options)

    def join(self, collector: Collector, recording: Recording) -> None:
        """Leaves it to `stop` to stop a recording, and to `save` to save it."""
        self._recordings.append((collector, recording))

    def not_started(self, collector: Collector, error: BaseException) -> None:
        """Says what became of a collector that did not start."""
        if isinstance(error, UnavailableError):
            self.append_outcome(collector, ArtifactStatus.UNAVAILABLE, str(error))
        elif isinstance(error, SkippedError):
            self.append_outcome(collector, ArtifactStatus.SKIPPED, str(error))
        else:
            self._lost(collector, "start", error)

    def _drop(self, collector: Collector) -> None:
        self._recordings = [(other, recording) for other, recording in self._recordings if other is not collector]

    def stop(self, status: RunStatus, exception: BaseException | None = None) -> None:
        """Stops the collectors and seals the entry; runs again from where it was after an interrupt struck in it."""
        if self.ended is None:
            self.cpu_ended_s = time.thread_time()
            self.last_rss_bytes = self._read_rss()
            self.ended = self.clock()
        self.entry.hold()
        if self.late is not None:
            self.late.end()
        while self._recordings:
            collector, recording = self._recordings[-1]
            try:
                self.call(collector, recording, recording.stop)
                self._unsaved.append((collector, recording))
            except GUARDED as error:
                self._lost(collector, "stop", error)
            self._recordings.pop()
        self.enter_error = None
        if not self.sealed:
            if exception is not None:
                self._take_traceback(exception)
            self._judge(status)
            # In one go: a run whose worker dies now is dropped, or kept, like any other.
            verdict = () if self.dropped is None else ({"dropped": list(self.dropped)},)
            self.entry.append(*verdict, {"end": end_record(self, status, exception)})
            self.entry.write()
            self.sealed = True

    def _read_rss(self) -> int | None:
        try:
            return self.process.rss.rss_bytes()
        except GUARDED as error:
            self.process.warn_once(("rss", type(error)), error, "The RSS could not be read.")
            return None

    def follow_rss(self, look: Callable[[int], None]) -> None:
        """Calls *look* with the RSS, several times a second while the function runs, on the ticker's thread."""
        self._followers.append(look)

    def look(self, rss_bytes: int) -> None:
        """Takes note of the RSS. Runs on the ticker's thread."""
        if self.is_executing and self.ended is None:
            self._looked_rss_bytes = max(self._looked_rss_bytes, rss_bytes)
            for look in self._followers:
                look(rss_bytes)

    def _judge(self, status: RunStatus) -> None:
        try:
            if self.process.judge.rules_of(self.actor):
                self.dropped = self.process.judge.verdict(self, status, self._facts(status))
        except GUARDED as error:
            self.process.warn_once(("judge", type(error)), error, "A run could not be judged, and is kept.")

    def _facts(self, status: RunStatus) -> Facts:
        return Facts(
            failed=status == RunStatus.FAILED,
            duration_ms=self.duration_ms,
            peak_rss_bytes=self.peak_rss_bytes,
            first_rss_bytes=self.first_rss_bytes,
        )

    def _take_traceback(self, exception: BaseException) -> None:
        try:
            self._traceback = take_traceback(exception)
        except GUARDED as error:
            self._lost_traceback(error)

    def save(self) -> None:
        """Lets each recording leave its file. Runs on the sealer's thread, once the run is sealed."""
        for collector, recording in self._unsaved:
            try:
                if self.dropped is not None:
                    self.call(collector, recording, recording.discard)
                    self.remove_files(collector)
                    continue
                self.call(collector, recording, recording.save)
                if recording.reason is not None:
                    self.append_outcome(collector, ArtifactStatus.PARTIAL, recording.reason)
            except SkippedError as error:
                self.append_outcome(collector, ArtifactStatus.SKIPPED, str(error))
            except GUARDED as error:
                self._lost(collector, "save" if self.dropped is None else "discard", error)
        self._unsaved.clear()
        if self._traceback is not None:
            self._save_traceback(self._traceback)
            self._traceback = None
        self.entry.close()

    def remove_files(self, collector: Collector) -> None:
        """Removes what a collector left in the spool, apart from the entry. Raises: OSError."""
        self.entry.remove_files((collector.artifact_name, checkpoint_kind(collector.artifact_name)))

    def _save_traceback(self, traceback: Traceback) -> None:
        try:
            self.entry.append({"traceback": traceback_text(traceback)})
        except GUARDED as error:
            self._lost_traceback(error)

    def _lost_traceback(self, error: BaseException) -> None:
        self.process.warn_once(("traceback", type(error)), error, "The traceback of a failed run was lost.")

    def call(self, collector: Collector, recording: Recording, step: Callable[[], None]) -> None:
        """Takes a step of a recording, bounded in time where it is not a quick one. Raises: HungError, or its own."""
        if recording.quick:
            step()
            return
        if collector in self.process.hung:
            raise HungError("It hung in another run of this process.")
        try:
            call_bounded(step, STEP_TIMEOUT_S, self.process.ticker.call_soon)
        except HungError:
            self.process.hung.add(collector)
            raise

    def overlap(self, task_id: str) -> None:
        """Remembers the task of another run of the same process; it may be another run of the same task."""
        if len(self.overlapped) < MAX_OVERLAPPED:
            self.overlapped[cut_id(task_id)] = None

    def append_text(self, collector: Collector, text: str, *, peak_rss_bytes: int | None = None) -> None:
        """Appends to an artifact that is text by the line; it is in the spool when this returns."""
        while len(text) > _MAX_TEXT_LENGTH:
            self.entry.append({"to": collector.artifact_name, "text": text[:_MAX_TEXT_LENGTH]})
            text = text[_MAX_TEXT_LENGTH:]
        record: dict[str, Any] = {"to": collector.artifact_name, "text": text}
        if peak_rss_bytes is not None and peak_rss_bytes > self._noted_peak_bytes:
            record["peak_rss_bytes"] = self._noted_peak_bytes = peak_rss_bytes
        self.entry.append(record)

    def append_vitals(self, vitals: Vitals) -> None:
        """Looks at the RSS, and notes what has changed since the last time: the peak, and what began beside the run."""
        self.look(vitals.rss_bytes)
        peak_bytes = self.peak_rss_bytes or 0
        if peak_bytes > self._noted_peak_bytes * _NOTED_GROWTH:
            self.entry.append({"peak": peak_bytes})
            self._noted_peak_bytes = peak_bytes
        beside = list(self.overlapped)
        if len(beside) > self._noted_overlapped:
            self.entry.append({"beside": beside[self._noted_overlapped :]})
            self._noted_overlapped = len(beside)

    def append_outcome(self, collector: Collector, status: ArtifactStatus, reason: str) -> None:
        """Says what became of an artifact, and why."""
        self.entry.append({"artifact": collector.artifact_name, "status": status, "reason": reason})

    def _lost(self, collector: Collector, step: str, error: BaseException) -> None:
        text = "The collector %r failed to %s and was left out."
        # Without a spool there is no place for files, which was said when it could not be opened.
        if not isinstance(error, OSError) or self.process.spool.owner is not None:
            self.process.warn_once((collector.name, step, type(error)), error, text, collector.name, step)
        self.append_outcome(collector, ArtifactStatus.FAILED, f"{type(error).__name__} at {step}: {text_of(error)}")
