"""Measures a run: when it was made, when the actor's function was called and had returned, and the memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from mmap import PAGESIZE
from typing import TYPE_CHECKING, Any

from ..collectors.services import Services, Since
from ..errors import GUARDED
from ..policy.propagation import DUE_OPTION
from ..runtime.coroutine_steps import CoroutineSteps
from ..runtime.counters import SCHEDSTAT_CHARACTERS, Counters, Reading, ThreadCounters
from ..runtime.cpu_limit import CPU_STAT_BEGINNINGS
from ..spool.schema import Counted, End, moment, text_of
from ..statuses import RunStatus

if TYPE_CHECKING:
    from dramatiq import Message

#: A moment that is further from 1970 is none, in milliseconds; a sender may write any number.
_MAX_DUE_MS = 1e15


class RunMeasures:
    """The times of a run on its task's thread, and the RSS of the process; see `RunContext` for the attributes."""

    __slots__ = (
        "_counters",
        "_followers",
        "_processed",
        "_seen_rss_bytes",
        "clock",
        "coroutine_steps",
        "ended",
        "first_rss_bytes",
        "is_async",
        "is_executing",
        "last_rss_bytes",
        "made",
        "read_at_call",
        "read_at_return",
        "services",
        "started",
        "started_at_s",
    )

    def __init__(self, services: Services, *, is_async: bool = False) -> None:
        self.services = services
        self.clock = services.clock
        self.made = self.clock()
        self.started_at_s, self.started = time.time(), self.made
        "When the function was called; before that, when the run was made."
        self.ended: float | None = None
        self._counters: ThreadCounters | None = None
        self.read_at_call: Reading | None = None
        "What was counted for the thread when the function was called; None where that was not noted."
        self.read_at_return: Reading | None = None
        self.coroutine_steps: CoroutineSteps | None = None
        self.is_async = is_async
        self._processed: tuple[Message[Any], Since] | None = None
        "The message of an async run and since when it is processed, while it runs."
        self.is_executing = False
        self.first_rss_bytes: int | None = None
        self._seen_rss_bytes = 0
        "The largest RSS in between, which the ticker's thread writes; the task's writes the first and the last one."
        self.last_rss_bytes: int | None = None
        self._followers: list[Callable[[int], None]] = []

    def note_call(self) -> None:
        """Notes the call of the function, which comes next."""
        if self.is_async:
            thread_id = threading.get_ident()
            self._processed = self.services.messages.get(thread_id)
            self.services.coroutines.measured[thread_id] = None
        self.started_at_s, self.started = time.time(), self.clock()
        # After the clock, and at the end before it: a wait for a processor in between is part of the duration as well.
        try:
            self._counters = self.services.counters.own()
            self.read_at_call = self._counters.read()
        except GUARDED as error:
            self._warn_of_counters(error)
        self.is_executing = True

    def note_return(self) -> None:
        """Notes that the function has returned."""
        try:
            counters = self._counters
            self.read_at_return = (self.services.counters.own() if counters is None else counters).read()
        except GUARDED as error:
            self._warn_of_counters(error)
        if self.is_async:
            coroutines, thread_id, processed = self.services.coroutines, threading.get_ident(), self._processed
            if (measured := coroutines.measured.get(thread_id)) is not None:
                self.coroutine_steps = measured.steps
                if processed is not None:
                    for note_end in coroutines.on_end:
                        note_end(thread_id, processed, measured)
            coroutines.measured.pop(thread_id, None)  # After that, as an interrupt may come in between.
            self._processed = None
        self.last_rss_bytes = self.read_rss()
        self.ended = self.clock()

    @property
    def at_call(self) -> Counters | None:
        """What was counted for the task's thread when the function was called; None where that was not noted."""
        return None if self.read_at_call is None else Counters(*self.read_at_call)

    @property
    def at_return(self) -> Counters | None:
        """The same when the function had returned; None before that."""
        return None if self.read_at_return is None else Counters(*self.read_at_return)

    @property
    def cpu_started_s(self) -> float:
        """The CPU time of the task's thread when the function was called, in seconds; 0 where it was not noted."""
        return 0.0 if self.at_call is None else self.at_call.cpu_s

    @property
    def cpu_ended_s(self) -> float | None:
        """The same when the function had returned; None before that."""
        return None if self.at_return is None else self.at_return.cpu_s

    @property
    def touched_at_call_bytes(self) -> int | None:
        """What the task's thread had touched when the function was called; None where it is not known."""
        return None if self.at_call is None else self.at_call.touched_bytes

    @property
    def started_at(self) -> datetime:
        """When the function was called."""
        return datetime.fromtimestamp(self.started_at_s, UTC)

    @property
    def elapsed_s(self) -> float:
        """Seconds for which the function has been running, or ran; 0 before it is called."""
        if not self.is_executing:
            return 0.0
        return (self.clock() if self.ended is None else self.ended) - self.started

    @property
    def peak_rss_bytes(self) -> int | None:
        """The largest RSS that was read; None where it could not be read."""
        return max(self.first_rss_bytes or 0, self._seen_rss_bytes, self.last_rss_bytes or 0) or None

    def read_rss(self) -> int | None:
        """Returns: The RSS of the process; None where it cannot be read, which is logged."""
        try:
            return self.services.rss.rss_bytes()
        except GUARDED as error:
            self.services.warn_once(("rss", type(error)), error, "The RSS could not be read.")
            return None

    def _warn_of_counters(self, error: BaseException) -> None:
        self.services.warn_once(("counters", type(error)), error, "The counters of a run could not be read.")

    def end(self, status: RunStatus, exception: BaseException | None) -> End:
        """Returns: The end of the run as its entry has it, but for the overlapping tasks."""
        elapsed_s = self.elapsed_s
        return {
            "status": status,
            "started_at": moment(self.started_at_s),
            "finished_at": moment(self.started_at_s + elapsed_s),
            "duration_ms": round(elapsed_s * 1000, 3),
            "collection_ms": round((self.clock() - self.made - elapsed_s) * 1000, 3),
            "peak_rss_bytes": self.peak_rss_bytes,
            "exception_type": None if exception is None else type(exception).__qualname__,
            "exception_message": None if exception is None else text_of(exception),
            **self._counted(),  # type: ignore[typeddict-item]  # It has no other field than `End`.
        }

    def _counted(self) -> Counted:
        """Returns: What was counted while the function ran; what is not known is left out.

        The kernel's texts are parsed where the entry is read. All is in one function: right after a task each further
        one costs more than a microsecond.
        """
        before, after = self.read_at_call, self.read_at_return
        if before is None or after is None:  # It is the run of a task that was called before.
            return {}
        cpu_before_s, gc_before_s, schedstat_before, cpu_stat_before, usage_before = before
        cpu_s, gc_s, schedstat, cpu_stat, usage = after
        counted: Counted = {}
        # A task may have closed our descriptors and opened files of its own under their numbers: none of their text
        # gets into the spool.
        if cpu_stat_before.startswith(CPU_STAT_BEGINNINGS) and cpu_stat.startswith(CPU_STAT_BEGINNINGS):
            counted["cpu_stat"] = str(cpu_stat_before, "ascii", "replace"), str(cpu_stat, "ascii", "replace")
        if self.is_async:  # Its thread waits meanwhile, and the event loop's serves other tasks as well.
            steps = self.coroutine_steps
            counted["cpu_ms"] = None if steps is None else round(steps.cpu_s * 1000, 3)
        elif not self.services.counters.is_thread_shared:
            counted["cpu_ms"] = max(cpu_s - cpu_before_s, 0.0) * 1000
            # What is counted of collections begins anew once nothing has been diagnosed for a while.
            counted["gc_ms"] = max(gc_s - gc_before_s, 0.0) * 1000
            if not (schedstat_before + schedstat).translate(None, SCHEDSTAT_CHARACTERS):
                counted["schedstat"] = str(schedstat_before, "ascii"), str(schedstat, "ascii")
            if usage is not None:
                counted["touched_bytes"] = (usage.ru_minflt - usage_before.ru_minflt) * PAGESIZE
                counted["major_faults"] = usage.ru_majflt - usage_before.ru_majflt
        return counted

    def follow_rss(self, look: Callable[[int], None]) -> None:
        """Calls *look* with the RSS many times a second while the function runs, on the ticker's thread."""
        self._followers.append(look)

    def unfollow_rss(self, look: Callable[[int], None]) -> None:
        """Ends `follow_rss`. Runs on the ticker's thread."""
        self._followers = [other for other in self._followers if other != look]

    def look(self, rss_bytes: int) -> None:
        """Notes the RSS. Runs on the ticker's thread."""
        if self.is_executing and self.ended is None:
            self._seen_rss_bytes = max(self._seen_rss_bytes, rss_bytes)
            for look in self._followers:
                try:
                    look(rss_bytes)
                except GUARDED as error:
                    self.unfollow_rss(look)
                    text = "What a collector does at each reading of the RSS failed, and is not done again in this run."
                    self.services.warn_once(("follow rss", type(error)), error, text)


def queue_wait_ms(message: Message[Any], now_s: float) -> float | None:
    """Returns: The time from the moment when a message was due until *now_s*, in seconds since the epoch.

    A delayed message, which each retry is, was due at its `eta`, any other when it was sent. Where the clock of the
    sender is ahead it is 0; None where the message has no such number.
    """
    due_ms: Any = message.options.get(DUE_OPTION)
    if due_ms is None:
        due_ms = message.message_timestamp
    if not isinstance(due_ms, int | float) or not abs(due_ms) < _MAX_DUE_MS:  # False for NaN, too.
        return None
    return round(max(now_s * 1000 - due_ms, 0.0), 3)
