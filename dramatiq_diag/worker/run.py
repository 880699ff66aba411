"""One run: an attempt to execute a task, from the moment it is taken up until its entry is complete."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from ..collectors.base import Collector
from ..collectors.services import Services
from ..errors import GUARDED
from ..policy.keep_policy import KeepPolicy
from ..policy.keep_rules import Facts
from ..policy.propagation import task_id_of
from ..policy.selection import Choice
from ..runtime.memory_state import MemoryState
from ..runtime.tracebacks import Traceback, take_traceback, traceback_text
from ..spool.directory import Spool
from ..spool.schema import MAX_OVERLAPPED, Record, RunIdentity, cut_id, end_record, start_record
from ..statuses import ArtifactStatus, RunStatus
from .recordings import Recordings

if TYPE_CHECKING:
    from dramatiq import Actor
    from dramatiq.broker import MessageProxy

#: A longer text goes into the entry in pieces of this length, in characters: its lines are read one at a time.
_MAX_TEXT_LENGTH = 64 * 1024

#: The entry gets a peak that is larger than the last one by this factor, so that a task that grows has a small entry.
_NOTED_GROWTH = 1.01


class LateStarts(Protocol):
    """What may start in the middle of a run; see `late.Late`."""

    def arm(self) -> None: ...
    def look(self, rss_bytes: int) -> None: ...
    def end(self) -> None: ...


class Run:
    """One attempt to execute a task.

    Parameters:
      services: The parts that the runs of the process share.
      spool: The spool of the process.
      keep_policy: Decides whether its artifacts are kept.
      stuck: The collectors of the process one of whose steps did not return.
      message: Dramatiq's message.
      actor: The actor that is called.
      choice: The collectors that were selected.
      late: The collectors that may start in the middle of the run.
    """

    def __init__(
        self,
        services: Services,
        spool: Spool,
        keep_policy: KeepPolicy,
        stuck: set[Collector],
        message: MessageProxy,
        actor: Actor[..., Any],
        choice: Choice,
        late: Sequence[Collector] = (),
    ) -> None:
        self.services = services
        self.choice = choice
        self.actor = actor
        self.clock = services.clock
        self.made = services.clock()
        self.entry = spool.entry()
        self.recordings = Recordings(services, spool, self.entry, choice, stuck)
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
        "When its function had returned, by `clock`; None before that."
        self.cpu_started_s = time.thread_time()
        "The CPU time of the thread when the function was called."
        self.cpu_ended_s: float | None = None
        self.overlapped: dict[str, None] = {}
        "The ids of tasks that the process executed meanwhile."
        self.sealed = False
        "Whether its entry has the end of the run."
        self.taken = False
        "Whether the saver has it."
        self.is_executing = False
        "Whether its function has been called: what begins now begins late, and on another thread."
        self.coroutine: Coroutine[Any, Any, Any] | None = None
        "The coroutine of an async actor, once it is known and while something may begin late."
        self.late: LateStarts | None = None
        self.dropped: Sequence[str] | None = None
        "The keep rules none of which held; None for a run that is kept."
        self.first_rss_bytes: int | None = None
        "The RSS before the collectors started; None where it could not be read."
        self.last_rss_bytes: int | None = None
        "The RSS when the function had returned; None before that."
        self._keep_policy = keep_policy
        self._seen_rss_bytes = 0
        "The largest RSS in between. Each of the three is written by one thread alone."
        self._noted_peak_bytes = 0
        "The peak that the entry has."
        self._noted_overlapped = 0
        "How many ids of overlapping tasks the entry has."
        self._followers: list[Callable[[int], None]] = []
        self._traceback: Traceback | None = None
        names = {collector.artifact_name for collector in late}
        self._denied = {denied: why for denied, why in choice.denied.items() if denied.artifact_name not in names}
        "Stand-in of each collector that was asked for and is not allowed -> the reason."
        declared = (*choice.collectors, *late, *self._denied)
        self.entry.append(start_record(self.identity, self.started_at, declared))

    @property
    def identity(self) -> RunIdentity:
        """What identifies the run in the spool and in the store."""
        return {
            "run_id": self.run_id,
            "task_id": self.task_id,
            "actor_name": self.actor_name,
            "queue_name": self.queue_name,
            "hostname": self.services.hostname,
            "pid": self.services.pid,
            "parent_run_id": self.choice.parent_run_id,
            "capture_id": self.choice.capture_id,
        }

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
    def finished_at(self) -> datetime:
        """When its function had ended."""
        return datetime.fromtimestamp(self.started_at_s + self.elapsed_s, UTC)

    @property
    def collection_ms(self) -> float:
        """What the collectors have taken of the task's thread so far, before its function and after it."""
        return (self.clock() - self.made - self.elapsed_s) * 1000

    @property
    def peak_rss_bytes(self) -> int | None:
        """The largest RSS that was seen; None where nobody could look."""
        return max(self.first_rss_bytes or 0, self._seen_rss_bytes, self.last_rss_bytes or 0) or None

    @property
    def enter_error(self) -> Exception | None:
        """The error of `Recording.enter`, until `Recording.entered` has it."""
        return self.recordings.enter_error

    def options(self, collector: Collector) -> Any:
        """Returns: The options of a collector in this run, an `Options` of its own class."""
        return self.recordings.options(collector)

    def start(self) -> Iterator[Callable[[], object]]:
        """Starts the collectors, and writes the entry; the function is called right after.

        Yields the functions that Dramatiq's hook has to call itself; see `Recordings.start`.
        """
        self.first_rss_bytes = self._read_rss()
        for denied, reason in self._denied.items():
            self.recordings.append_outcome(denied, ArtifactStatus.SKIPPED, reason)
        yield from self.recordings.start(self)
        # A run whose worker dies has no record of its end, so this one has the time that the collectors took.
        collection_ms = round((self.clock() - self.made) * 1000, 3)
        self.entry.append({"called": {"started_at": datetime.now(UTC), "collection_ms": collection_ms}})
        self.entry.flush()
        self.started_at_s, self.cpu_started_s, self.started = time.time(), time.thread_time(), self.clock()
        self.is_executing = True
        if self.late is not None:
            self.late.arm()

    def stop(self, status: RunStatus, exception: BaseException | None = None) -> None:
        """Stops the collectors and completes the entry; after an interrupt it may be called again, and goes on."""
        if self.ended is None:
            self.cpu_ended_s = time.thread_time()
            self.last_rss_bytes = self._read_rss()
            self.ended = self.clock()
        self.entry.buffer()
        if self.late is not None:
            self.late.end()
        self.recordings.stop()
        if not self.sealed:
            if exception is not None:
                self._take_traceback(exception)
            self._decide(status)
            # In one write: a run whose worker dies now is dropped, or kept, like any other.
            decision: tuple[Record, ...] = () if self.dropped is None else ({"dropped": list(self.dropped)},)
            self.entry.append(*decision, end_record(self, status, exception))
            self.entry.flush()
            self.sealed = True

    def _read_rss(self) -> int | None:
        try:
            return self.services.rss.rss_bytes()
        except GUARDED as error:
            self.services.warn_once(("rss", type(error)), error, "The RSS could not be read.")
            return None

    def follow_rss(self, look: Callable[[int], None]) -> None:
        """Calls *look* with the RSS, several times a second while the function runs, on the ticker's thread."""
        self._followers.append(look)

    def look(self, rss_bytes: int) -> None:
        """Takes note of the RSS. Runs on the ticker's thread."""
        if self.is_executing and self.ended is None:
            self._seen_rss_bytes = max(self._seen_rss_bytes, rss_bytes)
            for look in self._followers:
                look(rss_bytes)

    def _decide(self, status: RunStatus) -> None:
        try:
            if self._keep_policy.rules_of(self.actor):
                is_requested = self.choice.requested or self.choice.capture_id is not None
                facts = self._facts(status)
                self.dropped = self._keep_policy.unmet_rules(self.actor, status, facts, is_requested=is_requested)
        except GUARDED as error:
            text = "The keep rules of a run could not be evaluated, and it is kept."
            self.services.warn_once(("keep rules", type(error)), error, text)

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
        """Writes the files of the artifacts, or removes them. Runs on the saver's thread, once the run is sealed."""
        if self.dropped is None:
            self.recordings.save()
        else:
            self.recordings.discard()
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
        self.services.warn_once(("traceback", type(error)), error, "The traceback of a failed run was lost.")

    def overlap(self, task_id: str) -> None:
        """Notes the task of an overlapping run of the process; it may be another run of the same task."""
        if len(self.overlapped) < MAX_OVERLAPPED:
            self.overlapped[cut_id(task_id)] = None

    def append_text(self, collector: Collector, text: str, *, peak_rss_bytes: int | None = None) -> None:
        """Appends to an artifact that is text by the line; it is in the spool when this returns."""
        while len(text) > _MAX_TEXT_LENGTH:
            self.entry.append({"to": collector.artifact_name, "text": text[:_MAX_TEXT_LENGTH]})
            text = text[_MAX_TEXT_LENGTH:]
        record: Record = {"to": collector.artifact_name, "text": text}
        if peak_rss_bytes is not None and peak_rss_bytes > self._noted_peak_bytes:
            record["peak_rss_bytes"] = self._noted_peak_bytes = peak_rss_bytes
        self.entry.append(record)

    def note_memory_state(self, vitals: MemoryState) -> None:
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
