"""A run: one attempt to execute a task, from its registration until its spool entry is complete."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..collectors.base import Collector
from ..collectors.services import Services
from ..errors import GUARDED
from ..policy.keep_policy import KeepPolicy
from ..policy.keep_rules import Facts
from ..policy.propagation import SendingTask, task_id_of
from ..policy.selection import Choice
from ..policy.traces import NO_TRACE, Trace
from ..runtime.memory_state import MemoryState
from ..runtime.stacks import coroutine_function
from ..runtime.tracebacks import Traceback, take_traceback, traceback_text
from ..spool.directory import Spool
from ..spool.schema import MAX_OVERLAPPED, End, Record, RunIdentity, cut_id, moment, start_record, text_records
from ..statuses import ArtifactStatus, RunStatus
from ..store.records import NO_SLOT
from .extensions import Attached, LateStarts
from .hung_collectors import HungCollectors
from .recordings import Recordings
from .run_measures import RunMeasures, queue_wait_ms

if TYPE_CHECKING:
    from dramatiq import Actor, Message

#: A new peak is written once it exceeds the last written one by this factor, so that a growing task has a small entry.
_NOTED_GROWTH = 1.01


class Run(RunMeasures):
    """One attempt to execute a task.

    Parameters:
      hung: The collectors of the process of which a step does not return.
      late: The collectors that may start in the middle of the run.
      without_capture: The names of the artifacts that the run has even if its capture has no slot for it; None where no
        capture asked for the run.
      trace: The trace that the run is part of.
    """

    # With more than 30 attributes the dictionary of an object does not share its keys with others of the class, and
    # making one takes longer.
    __slots__ = (
        "_denied",
        "_keep_policy",
        "_noted_overlapped",
        "_noted_peak_bytes",
        "_start",
        "_traceback",
        "_without_capture",
        "actor",
        "actor_name",
        "attachments",
        "before_save",
        "choice",
        "dropped",
        "entry",
        "is_attached",
        "late",
        "native_id",
        "overlapped",
        "queue_name",
        "queue_wait_ms",
        "recordings",
        "run_id",
        "sealed",
        "sending",
        "slot_is_lost",
        "taken",
        "task_id",
        "thread_id",
        "thread_name",
        "trace",
    )

    def __init__(
        self,
        services: Services,
        spool: Spool,
        keep_policy: KeepPolicy,
        hung: HungCollectors,
        message: Message[Any],
        actor: Actor[..., Any],
        choice: Choice,
        late: Sequence[Collector] = (),
        without_capture: list[str] | None = None,
        trace: Trace = NO_TRACE,
    ) -> None:
        super().__init__(services, is_async=coroutine_function(actor) is not None)
        self.choice = choice
        self.actor = actor
        self.entry = spool.entry()
        self.recordings = Recordings(services, spool, self.entry, choice, hung)
        self.run_id = self.entry.run_id
        self.task_id = task_id_of(message)
        self.actor_name: str = message.actor_name
        self.queue_name: str = message.queue_name
        self.queue_wait_ms = queue_wait_ms(message, self.started_at_s)
        self.thread_id = threading.get_ident()
        self.native_id = threading.get_native_id()
        self.thread_name = threading.current_thread().name
        self.overlapped: dict[str, None] = {}
        "The ids of the tasks that the process executed meanwhile."
        self.sealed = False
        "Whether the entry has the end of the run."
        self.taken = False
        "Whether the saver has the run."
        self.late: LateStarts | None = None
        self.attachments: list[Attached] = []
        "Those that have not ended."
        self.before_save: list[Callable[[], None]] = []
        "Write texts into the entry that are found only after the end."
        self.is_attached = False
        "Whether there ever was one."
        self.dropped: Sequence[str] | None = None
        "The keep rules, where none of them held; None for a run that is kept."
        self.sending: SendingTask | None = None
        "What the messages that the task sends carry of it."
        self.slot_is_lost = False
        "Whether a capture asked for it and had no slot left."
        self.trace = trace
        self._without_capture = without_capture
        self._keep_policy = keep_policy
        self._noted_peak_bytes = 0
        "The peak that was written into the entry."
        self._noted_overlapped = 0
        "How many ids of overlapping tasks were written into it."
        self._traceback: Traceback | None = None
        self._denied = _without(choice.denied, late) if choice.denied and late else choice.denied
        "The stand-in of each collector that was requested and is not allowed -> the reason."
        declared = (*choice.collectors, *late, *self._denied)
        self._start: Record | None = start_record(self.identity, self.started_at_s, declared)
        "The first record; None once the entry has it."

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
            "worker_id": self.services.worker_id,
            "queue_wait_ms": self.queue_wait_ms,
            "parent_run_id": self.choice.parent_run_id,
            "capture_id": self.choice.capture_id,
            "without_capture": self._without_capture,
            "trace_id": self.trace.trace_id,
            "span_id": self.trace.span_id,
            "release": self.services.release,
        }

    @property
    def coroutine(self) -> Coroutine[Any, Any, Any] | None:
        """The coroutine of an async actor, while the event loop has it."""
        return self.services.coroutines.running.get(self.thread_id)

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
        self.first_rss_bytes = self.read_rss()
        for denied, reason in self._denied.items():
            self.recordings.append_outcome(denied, ArtifactStatus.SKIPPED, reason)
        yield from self.recordings.start(self)
        # A run whose worker dies has no record of its end, so this record has the collectors' time too.
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
            self.note_return()
        self.entry.buffer()
        if self.late is not None:
            self.late.end()
        for attachment in tuple(self.attachments):
            attachment.end_with_run()
        self.recordings.stop()
        if not self.sealed:
            self.write_start()  # If an interrupt cut `start` short.
            if exception is not None:
                self._take_traceback(exception)
            self._decide(status)
            # One write: if the worker dies here, the run is dropped or kept as decided.
            decision: tuple[Record, ...] = () if self.dropped is None else ({"dropped": list(self.dropped)},)
            end = self.end(status, exception)
            end["overlapped_task_ids"] = list(self.overlapped)
            self.entry.append(*decision, {"end": end})
            self.entry.flush()
            self.sealed = True

    def seal_with(self, status: RunStatus) -> None:
        """Completes the entry with no more than the status and the time, after `stop` has failed."""
        elapsed_s = self.elapsed_s
        end: End = {
            "status": status,
            "started_at": moment(self.started_at_s),
            "finished_at": moment(self.started_at_s + elapsed_s),
            "duration_ms": round(elapsed_s * 1000, 3),
        }
        self.write_start()
        self.entry.append({"end": end})
        self.entry.flush()
        self.sealed = True

    def abandon(self) -> None:
        """Ends what is collected of a task that goes on, as its worker stops."""
        if self.late is not None:
            self.late.end()
        reason = "The worker was stopped while the task went on."
        self.recordings.end_early(but=(), reason=reason)
        self.entry.append({"stopped": reason})
        for attachment in tuple(self.attachments):
            attachment.end_early(reason)

    def close(self) -> None:
        """Closes the files of a run that was abandoned; what it appends after this is lost."""
        for entry in (self.entry, *(attachment.entry for attachment in tuple(self.attachments))):
            entry.close()

    def lose_slot(self) -> None:
        """Stops collecting for a capture that has no slot for the run. Runs on the publisher's thread."""
        self.slot_is_lost = True
        sending = self.sending
        if sending is not None:
            sending.request = None
        if not self.sealed:
            self.recordings.end_early(but=self._without_capture or (), reason=NO_SLOT)

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
        for write in self.before_save:
            write()
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
        self._followers = []  # They refer to the run: as a cycle it and its message would stay until a full collection.

    def _warn_of_lost_traceback(self, error: BaseException) -> None:
        self.services.warn_once(("traceback", type(error)), error, "The traceback of a failed run was lost.")

    def overlap(self, task_id: str) -> None:
        """Notes the task of an overlapping run of the process; it may be another run of the same task."""
        if len(self.overlapped) < MAX_OVERLAPPED:
            self.overlapped[cut_id(task_id)] = None

    def append_text(self, collector: Collector, text: str, *, peak_rss_bytes: int | None = None) -> None:
        """Appends lines to a text artifact; they are in the spool when this returns."""
        records = text_records(collector.artifact_name, text)
        if peak_rss_bytes is not None and peak_rss_bytes > self._noted_peak_bytes:
            records[-1]["peak_rss_bytes"] = self._noted_peak_bytes = peak_rss_bytes
        self.entry.append(*records)  # In one call: no sample of another thread comes between two pieces.

    def note_memory_state(self, state: MemoryState) -> None:
        """Notes the RSS. Writes a new peak, and the ids of tasks that began since the last call, into the entry."""
        self.look(state.rss_bytes)
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
