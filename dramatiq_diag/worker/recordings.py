"""Takes the steps of a run's recordings. Each step is guarded: a collector that fails costs only its own artifact."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

from ..collectors.base import Collector, Recording, RunContext, checkpoint_name
from ..collectors.services import Services
from ..errors import GUARDED, PASSED_ON, SkippedError, StepTimeoutError, UnavailableError
from ..policy.selection import Choice
from ..runtime.timeout import call_with_timeout
from ..spool.directory import Spool
from ..spool.entry import Entry
from ..spool.schema import text_of
from ..statuses import ArtifactStatus
from .hung_collectors import HungCollectors


class Recordings:
    """The recordings of a run, from their start to their files, and the outcome of each artifact.

    Parameters:
      hung: The collectors of the process of which a step does not return; others are added.
    """

    def __init__(self, services: Services, spool: Spool, entry: Entry, choice: Choice, hung: HungCollectors) -> None:
        self._services = services
        self._spool = spool
        self._entry = entry
        self._choice = choice
        self._hung = hung
        self.enter_error: Exception | None = None
        "The error of the last `Recording.enter`, set by Dramatiq's hook."
        self.running: list[tuple[Collector, Recording]] = []
        self._unsaved: list[tuple[Collector, Recording]] = []
        self._is_started = False
        "Whether `start` came to its end, and was not cut short by an interrupt."
        self._refused: list[Collector] = []
        "Collectors that did not start, as the entry says."
        self._slow_looks = HungCollectors()
        "Collectors of which `so_far` does not return. Apart from `hung`, as neither run nor artifact depends on it."

    def start(self, run: RunContext) -> Iterator[Callable[[], object]]:
        """Starts the selected collectors.

        Yields:
          The functions that Dramatiq's hook has to call itself; see `Recording.enter`. Their errors go into
          `enter_error`.
        """
        for collector in self._choice.collectors:
            try:
                recording = self.record(run, collector)
                # Before the start: `stop` ends a start that an interrupt cut short.
                self.running.append((collector, recording))
                # Not by `call`: each function that is called here costs microseconds, as the work of tasks has pushed
                # its code out of the processor's caches.
                if recording.runs_inline:
                    recording.start()
                else:
                    undo = partial(self._undo, collector, recording)
                    self._call(collector, recording, recording.start, self._hung, undo)
                if recording.enter is not None:
                    self.enter_error = None
                    yield recording.enter
                    recording.entered(self.enter_error)
                    self.enter_error = None  # It refers to frames, and these refer to the recording.
            except BaseException as error:  # A library in Rust that panics raises one that is no Exception.
                if isinstance(error, PASSED_ON):
                    raise
                self.running = [pair for pair in self.running if pair[0] is not collector]
                self.enter_error = None
                self.not_started(collector, error)
        self._is_started = True

    def record(self, run: RunContext, collector: Collector) -> Recording:
        """Makes a recording. Raises: SkippedError, or the error of the collector."""
        if self._spool.full or self._entry.is_declined:
            raise SkippedError("The spool is full; see DRAMATIQ_DIAG_SPOOL_MAX_BYTES.")
        if collector in self._hung:
            raise SkippedError("It hung in another run of this process.")
        if (reason := self._choice.rejected_options.get(collector.name)) is not None:
            raise SkippedError(reason)
        return collector.record(run)

    def join(self, collector: Collector, recording: Recording) -> None:
        """Adds a recording that `stop` stops and `save` saves."""
        self.running.append((collector, recording))

    def not_started(self, collector: Collector, error: BaseException) -> None:
        """Writes the outcome of a collector that did not start."""
        self._refused.append(collector)
        if isinstance(error, UnavailableError):
            self.append_outcome(collector, ArtifactStatus.UNAVAILABLE, str(error))
        elif isinstance(error, SkippedError):
            self.append_outcome(collector, ArtifactStatus.SKIPPED, str(error))
        else:
            self._lost(collector, "start", error)

    def stop(self) -> None:
        """Stops the recordings, the last one first. An interrupt may cut it short: called again, it goes on."""
        if not self._is_started:
            begun = {*self.collectors(), *self._refused}
            for collector in self._choice.collectors:
                if collector not in begun:
                    self.not_started(collector, SkippedError("The run was interrupted before this was started."))
            self._is_started = True
        while self.running:
            collector, recording = self.running[-1]
            try:
                if recording.runs_inline:
                    recording.stop()
                else:
                    self.call(collector, recording, recording.stop)
                self._unsaved.append((collector, recording))
            except BaseException as error:
                if isinstance(error, PASSED_ON):
                    raise
                self._lost(collector, "stop", error)
            self.running.pop()
        self.enter_error = None

    def collectors(self) -> list[Collector]:
        """Returns: The collectors that record, or have recorded and are not saved. Any thread may ask."""
        return [collector for collector, _ in (*self.running, *self._unsaved)]

    def end_early(self, but: Collection[str], reason: str) -> None:
        """Ends the recordings of all artifacts but these while the task goes on, on another thread than the task's."""
        for collector, recording in tuple(self.running):
            if collector.artifact_name not in but:
                try:
                    recording.end_early(reason)
                except GUARDED as error:
                    self._lost(collector, "end", error)

    def so_far(self) -> list[tuple[Collector, dict[str, Any] | None]]:
        """Returns: The running collectors, each with what it has measured so far. Runs on the contact's thread."""
        return [(collector, self._so_far(collector, recording)) for collector, recording in tuple(self.running)]

    def _so_far(self, collector: Collector, recording: Recording) -> dict[str, Any] | None:
        if getattr(recording.so_far, "__func__", None) is Recording.so_far:  # It would cost a thread for nothing.
            return None
        found: list[dict[str, Any] | None] = []
        try:
            self._call(collector, recording, lambda: found.append(recording.so_far()), self._slow_looks)
        except GUARDED as error:
            text = "The collector %r could not tell what it has measured so far."
            self._services.warn_once((collector.name, "so far", type(error)), error, text, collector.name)
        return found[0] if found else None

    def save(self) -> None:
        """Lets each recording write its file. Runs on the saver's thread."""
        for collector, recording in self._unsaved:
            try:
                self.call(collector, recording, recording.save)
                if recording.reason is not None:
                    self.append_outcome(collector, ArtifactStatus.PARTIAL, recording.reason)
            except SkippedError as error:
                self.append_outcome(collector, ArtifactStatus.SKIPPED, str(error))
            except GUARDED as error:
                self._lost(collector, "save", error)
        self._unsaved.clear()

    def discard(self, but: Collection[str] = ()) -> None:
        """Removes the files of all artifacts but these. Runs on the saver's thread."""
        kept = [pair for pair in self._unsaved if pair[0].artifact_name in but]
        for collector, recording in self._unsaved:
            if collector.artifact_name in but:
                continue
            try:
                self.call(collector, recording, recording.discard)
                self.remove_files(collector)
            except GUARDED as error:
                self._lost(collector, "discard", error)
        self._unsaved = kept

    def remove_files(self, collector: Collector) -> None:
        """Removes the files of a collector from the spool. Raises: OSError."""
        self._entry.remove_files((collector.artifact_name, checkpoint_name(collector.artifact_name)))

    def call(self, collector: Collector, recording: Recording, step: Callable[[], None]) -> None:
        """Takes a step of a recording, for at most its `step_timeout_s` unless it `runs_inline`.

        Raises:
          StepTimeoutError: When the step did not return in time, or the collector hung before.
          BaseException: The error of the step.
        """
        self._call(collector, recording, step, self._hung)

    def _call(
        self,
        collector: Collector,
        recording: Recording,
        step: Callable[[], None],
        hung: HungCollectors,
        undo: Callable[[], None] | None = None,
    ) -> None:
        if recording.runs_inline:
            step()
            return
        if collector in hung:
            raise StepTimeoutError("It hung in another run of this process.")
        try:
            call_with_timeout(step, recording.step_timeout_s, self._services.ticker.call_soon, undo=undo)
        except StepTimeoutError as error:
            if error.has_begun:
                hung.add(collector, error.is_over)
            raise

    def _undo(self, collector: Collector, recording: Recording) -> None:
        """Ends a recording whose start returned after it was abandoned. Runs on the thread of that start."""
        try:
            recording.stop()
            recording.discard()
        except GUARDED as error:
            text = "The collector %r, which started late, failed to stop."
            self._services.warn_once((collector.name, "undo", type(error)), error, text, collector.name)

    def append_outcome(self, collector: Collector, status: ArtifactStatus, reason: str) -> None:
        """Writes the status of an artifact that is not `stored`, and the reason."""
        self._entry.append({"artifact": collector.artifact_name, "status": status, "reason": reason})

    def _lost(self, collector: Collector, step: str, error: BaseException) -> None:
        text = "The collector %r failed to %s and was left out."
        # Without a spool there is no place for files, which was logged when the spool could not be opened.
        if not isinstance(error, OSError) or self._spool.owner is not None:
            self._services.warn_once((collector.name, step, type(error)), error, text, collector.name, step)
        self.append_outcome(collector, ArtifactStatus.FAILED, f"{type(error).__name__} at {step}: {text_of(error)}")
