"""A run: one attempt to execute a task, from its registration until its spool entry is complete."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..collectors.base import Collector
from ..collectors.services import Services
from ..errors import GUARDED
from ..policy.keep_policy import KeepPolicy
from ..policy.keep_rules import Facts
from ..policy.propagation import SendingTask, task_id_of
from ..policy.selection import Choice
from ..runtime.memory_state import MemoryState
from ..runtime.tracebacks import Traceback, take_traceback, traceback_text
from ..spool.directory import Spool
from ..spool.schema import MAX_OVERLAPPED, Record, RunIdentity, cut_id, end_record, moment, start_record
from ..statuses import ArtifactStatus, RunStatus
from ..store.records import NO_SLOT
from .recordings import Recordings
from .run_times import RunTimes

if TYPE_CHECKING:
    from dramatiq import Actor, Message

#: A longer text is written in pieces of this length, in characters: an entry is read line by line.
_MAX_TEXT_LENGTH = 64 * 1024

#: A new peak is written once it exceeds the last written one by this factor, so that a growing task has a small entry.
_NOTED_GROWTH = 1.01


class LateStarts(Protocol):
    """The collectors that may start in the middle of a run; see `LateStart`."""

    def arm(self) -> None: ...
    def look(self, rss_bytes: int) -> None: ...
    def end(self) -> None: ...


class Run(RunTimes):
    """One attempt to execute a task.

    Parameters:
      services: The parts that the runs of the process share.
      spool: The spool of the process.
      keep_policy: Decides whether the artifacts are kept.
      stuck: The collectors of the process of which a step did not return.
      message: Dramatiq's message.
      actor: The actor that is called.
      choice: The selected collectors.
      late: The collectors that may start in the middle of the run.
      without_capture: The names of the artifacts that the run has even if its capture has no slot for it; None where no
        capture asked for the run.
    """

    # With more than 30 attributes the dictionary of an object does not share its keys with others of the class, and
    # making one takes longer.
    __slots__ = (
        "_denied",
        "_followers",
        "_keep_policy",
        "_noted_overlapped",
        "_noted_peak_bytes",
        "_seen_rss_bytes",
        "_start",
        "_traceback",
        "_without_capture",
        "actor",
        "actor_name",
        "choice",
        "coroutine",
        "dropped",
        "entry",
        "first_rss_bytes",
        "last_rss_bytes",
        "late",
        "native_id",
        "overlapped",
        "queue_name",
        "recordings",
        "run_id",
        "sealed",
        "sending",
        "services",
        "slot_is_lost",
        "taken",
        "task_id",
        "thread_id",
        "thread_name",
    )

    def __init__(
        self,
        services: Services,
        spool: Spool,
        keep_policy: KeepPolicy,
        stuck: set[Collector],
        message: Message[Any],
        actor: Actor[..., Any],
        choice: Choice,
        late: Sequence[Collector] = (),
        without_capture: list[str] | None = None,
    ) -> None:
        super().__init__(services.clock)
        self.services = services
        self.choice = choice
        self.actor = actor
        self.entry = spool.entry()
        self.recordings = Recordings(services, spool, self.entry, choice, stuck)
        self.run_id = self.entry.run_id
        self.task_id = task_id_of(message)
        self.actor_name: str = message.actor_name
        self.queue_name: str = message.queue_name
        self.thread_id = threading.get_ident()
        self.native_id = threading.get_native_id()
        self.thread_name = threading.current_thread().name
        self.overlapped: dict[str, None] = {}
        "The ids of the tasks that the process executed meanwhile."
        self.sealed = False
        "Whether the entry has the end of the run."
        self.taken = False
        "Whether the saver has the run."
        self.coroutine: Coroutine[Any, Any, Any] | None = None
        "The coroutine of an async actor, once it is known and while a collector may start late."
        self.late: LateStarts | None = None
        self.dropped: Sequence[str] | None = None
        "The keep rules, where none of them held; None for a run that is kept."
        self.first_rss_bytes: int | None = None
        "The RSS before the collectors started; None where it could not be read."
        self.last_rss_bytes: int | None = None
        "The RSS when the function had returned; None before that."
        self.sending: SendingTask | None = None
        "The task as the messages that it sends know it."
        self.slot_is_lost = False
        "Whether a capture asked for it and had no slot left."
        self._without_capture = without_capture
        self._keep_policy = keep_policy
        self._seen_rss_bytes = 0
        "The largest RSS in between. Only one thread writes each of the three."
        self._noted_peak_bytes = 0
        "The peak that stands in the entry."
        self._noted_overlapped = 0
        "How many ids of overlapping tasks stand in the entry."
        self._followers: list[Callable[[int], None]] = []
        self._traceback: Traceback | None = None
        self._denied = _without(choice.denied, late) if choice.denied and late else choice.denied
        "The stand-in of each collector that was requested and is not allowed -> the reason."
        declared = (*choice.collectors, *late, *self._denied)
        self._start: Record | None = start_record(self.identity, self.started_at_s, declared)
        "The first record, until the entry has it."

    @property
    def identity(self) -> RunIdentity:
        """The fields that the run has from its start, in the spool and in the store."""
        return {
            "run_id": self.run_id,
            "task_id": self.task_id,
            "actor_name": self.actor_name,
            "queue_name": self.queue_name,
            "hostname": self.services.hostname,
            "pid": self.services.pid,
            "parent_run_id": self.choice.parent_run_id,
            "capture_id": self.choice.capture_id,
            "without_capture": self._without_capture,
        }

    @property
    def peak_rss_bytes(self) -> int | None:
        """The largest RSS that was read; None where it could not be read."""
        return max(self.first_rss_bytes or 0, self._seen_rss_bytes, self.last_rss_bytes or 0) or None

    @property
    def enter_error(self) -> Exception | None:
        """The error of `Recording.enter`, until `Recording.entered` was given it."""
        return self.recordings.enter_error

    def options(self, collector: Collector) -> Any:
        """Returns: The options of a collector in this run, an `Options` of its own class."""
        return self.choice.options.get(collector.name, collector.default_options)

    def start(self) -> Iterator[Callable[[], object]]:
        """Starts the collectors, and writes the entry; the function is called right after.

        Yields the functions that Dramatiq's hook has to call itself; see `Recordings.start`.
        """
        self.first_rss_bytes = self._read_rss()
        for denied, reason in self._denied.items():
            self.recordings.append_outcome(denied, ArtifactStatus.SKIPPED, reason)
        yield from self.recordings.start(self)
        # A run whose worker dies has no record of its end, so the collectors' time stands in this record.
        collection_ms = round((self.clock() - self.made) * 1000, 3)
        record: Record = {"called": {"started_at": moment(time.time()), "collection_ms": collection_ms}}
        self.entry.append(record if self._start is None else {**self._start, **record})
        self._start = None
        self.entry.flush()
        self.note_call()
        if self.late is not None:
            self.late.arm()

    def write_start(self) -> None:
        """Writes the first record now, for a collector whose start may take the process down."""
        if self._start is not None:
            self.entry.append(self._start)
            self._start = None
            self.entry.flush()

    def stop(self, status: RunStatus, exception: BaseException | None = None) -> None:
        """Stops the collectors and completes the entry. An interrupt may cut it short: called again, it goes on."""
        if self.ended is None:
            if self.needs_cpu_time:
                self.cpu_ended_s = time.thread_time()
            self.last_rss_bytes = self._read_rss()
            self.ended = self.clock()
        self.entry.buffer()
        if self.late is not None:
            self.late.end()
        self.recordings.stop()
        if not self.sealed:
            if self._start is not None:  # An interrupt cut `start` short.
                self.entry.append(self._start)
                self._start = None
            if exception is not None:
                self._take_traceback(exception)
            self._decide(status)
            # One write: if the worker dies here, the run is dropped or kept as decided.
            decision: tuple[Record, ...] = () if self.dropped is None else ({"dropped": list(self.dropped)},)
            self.entry.append(*decision, end_record(self, status, exception))
            self.entry.flush()
            self.sealed = True

    def lose_slot(self) -> None:
        """Stops collecting for a capture that has no slot for the run. Runs on the publisher's thread."""
        self.slot_is_lost = True
        if self.sending is not None:
            self.sending.request = None
        if not self.sealed:
            self.recordings.end_early(but=self._without_capture or (), reason=NO_SLOT)

    def _read_rss(self) -> int | None:
        try:
            return self.services.rss.rss_bytes()
        except GUARDED as error:
            self.services.warn_once(("rss", type(error)), error, "The RSS could not be read.")
            return None

    def follow_rss(self, look: Callable[[int], None]) -> None:
        """Calls *look* with the RSS many times a second while the function runs, on the ticker's thread."""
        self._followers.append(look)

    def look(self, rss_bytes: int) -> None:
        """Notes the RSS. Runs on the ticker's thread."""
        if self.is_executing and self.ended is None:
            self._seen_rss_bytes = max(self._seen_rss_bytes, rss_bytes)
            for look in self._followers:
                look(rss_bytes)

    def _decide(self, status: RunStatus) -> None:
        try:
            if self._keep_policy.rules_of(self.actor):
                is_requested = self.choice.requested and not self.slot_is_lost
                facts = Facts(
                    failed=status == RunStatus.FAILED,
                    duration_ms=self.elapsed_s * 1000,
                    peak_rss_bytes=self.peak_rss_bytes,
                    first_rss_bytes=self.first_rss_bytes,
                )
                self.dropped = self._keep_policy.unmet_rules(self.actor, status, facts, is_requested=is_requested)
        except GUARDED as error:
            text = "The keep rules of a run could not be evaluated, and it is kept."
            self.services.warn_once(("keep rules", type(error)), error, text)

    def _take_traceback(self, exception: BaseException) -> None:
        try:
            self._traceback = take_traceback(exception)
        except GUARDED as error:
            self._warn_of_lost_traceback(error)

    def save(self) -> None:
        """Writes the files of the artifacts, or removes them. Runs on the saver's thread, after `stop`."""
        if self.dropped is not None:
            self.recordings.discard()
        elif self.slot_is_lost:
            self.recordings.discard(but=self._without_capture or ())
        self.recordings.save()
        if self._traceback is not None:
            try:
                self.entry.append({"traceback": traceback_text(self._traceback)})
            except GUARDED as error:
                self._warn_of_lost_traceback(error)
            self._traceback = None
        self.entry.close()

    def _warn_of_lost_traceback(self, error: BaseException) -> None:
        self.services.warn_once(("traceback", type(error)), error, "The traceback of a failed run was lost.")

    def overlap(self, task_id: str) -> None:
        """Notes the task of an overlapping run of the process; it may be another run of the same task."""
        if len(self.overlapped) < MAX_OVERLAPPED:
            self.overlapped[cut_id(task_id)] = None

    def append_text(self, collector: Collector, text: str, *, peak_rss_bytes: int | None = None) -> None:
        """Appends lines to a text artifact; they are in the spool when this returns."""
        pieces: list[Record] = []  # In one call: no sample of another thread comes between two pieces.
        while len(text) > _MAX_TEXT_LENGTH:
            pieces.append({"to": collector.artifact_name, "text": text[:_MAX_TEXT_LENGTH]})
            text = text[_MAX_TEXT_LENGTH:]
        record: Record = {"to": collector.artifact_name, "text": text}
        if peak_rss_bytes is not None and peak_rss_bytes > self._noted_peak_bytes:
            record["peak_rss_bytes"] = self._noted_peak_bytes = peak_rss_bytes
        self.entry.append(*pieces, record)

    def note_memory_state(self, vitals: MemoryState) -> None:
        """Notes the RSS. Writes a new peak, and the ids of tasks that began since the last call, into the entry."""
        self.look(vitals.rss_bytes)
        peak_bytes = self.peak_rss_bytes or 0
        if peak_bytes > self._noted_peak_bytes * _NOTED_GROWTH:
            self.entry.append({"peak": peak_bytes})
            self._noted_peak_bytes = peak_bytes
        beside = list(self.overlapped)
        if len(beside) > self._noted_overlapped:
            self.entry.append({"beside": beside[self._noted_overlapped :]})
            self._noted_overlapped = len(beside)


def _without(denied: Mapping[Collector, str], others: Sequence[Collector]) -> dict[Collector, str]:
    """Returns: The collectors of *denied* whose artifacts none of the others has."""
    names = {collector.artifact_name for collector in others}
    return {collector: why for collector, why in denied.items() if collector.artifact_name not in names}
