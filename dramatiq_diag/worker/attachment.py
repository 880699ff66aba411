"""Collects more of a run that goes on: for a time, or until the run ends."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from ..collectors.base import Collector
from ..policy.selection import Choice
from ..runtime.ticker import Timer
from ..spool.directory import Spool
from ..spool.schema import End, moment, start_record, text_records
from ..statuses import ArtifactStatus, RunStatus
from .hung_collectors import HungCollectors
from .late_recordings import LateRecordings
from .recordings import Recordings
from .run import Run
from .run_measures import RunMeasures

if TYPE_CHECKING:
    from dramatiq import Actor

#: Seconds that the task's thread waits at most, where its run ends just while the time of the attachment is up.
_STOP_TIMEOUT_S = 1.0

_Owner = Literal["time", "run"]


class Attachment(RunMeasures):
    """Collectors that begin in the middle of a run, with a spool entry of their own. Times are those of the run.

    The collectors begin, and end after the time, on the ticker's thread. The task's thread ends them with the run.

    Parameters:
      run: The run.
      attachment_id: The id, which names the entry.
      choice: What is collected.
      for_s: Seconds until it ends.
      on_sealed: Called once its entry has its end; where an interrupt strikes, it may be called again.
    """

    def __init__(
        self,
        spool: Spool,
        hung: HungCollectors,
        run: Run,
        attachment_id: uuid.UUID,
        choice: Choice,
        for_s: float,
        on_sealed: Callable[[Attachment], None],
    ) -> None:
        super().__init__(run.services)
        self.run = run
        self.for_s = for_s
        self.entry = spool.entry(attachment_id)
        self.recordings = Recordings(run.services, spool, self.entry, choice, hung)
        self.started, self.started_at_s, self.is_executing = run.started, run.started_at_s, True
        self.task_id, self.actor_name = run.task_id, run.actor_name
        self.actor: Actor[..., Any] = run.actor
        self.thread_id, self.native_id, self.thread_name = run.thread_id, run.native_id, run.thread_name
        self.coroutine = run.services.coroutines.running.get(run.thread_id)
        self.enter_error: Exception | None = None
        self.taken = False
        "Whether the saver has it."
        self.is_sealed = False
        self._choice = choice
        self._late = LateRecordings(self.recordings, self)
        self._on_sealed = on_sealed
        self._timer = Timer(for_s, self.end_after_time)
        self._owner: dict[str, _Owner] = {}
        "Under `owner`: what ended it. `setdefault` lets one of the two threads have it, for good."
        self._stopping = threading.Lock()

    # This runs on the contact's thread.

    def open(self) -> None:
        """Writes the first record: from now on it is salvaged if the process dies.

        The run's entry says so before: without that, the row of a run that lost its slot would be deleted, with this.
        """
        self.run.is_attached = True
        self.run.entry.append({"attached": True})
        declared = (*self._choice.collectors, *self._choice.denied)
        self.entry.append(start_record(self.run.identity, self.started_at_s, declared, self.entry.run_id))
        for denied, reason in self._choice.denied.items():
            self.recordings.append_outcome(denied, ArtifactStatus.SKIPPED, reason)
        self.entry.flush()

    # The next runs on the ticker's thread.

    def begin(self) -> None:
        """Starts the collectors."""
        # First in the list, then the look whether the run has ended: so one of the two threads sees the other's note.
        self.run.attachments.append(self)
        if self.run.ended is not None:
            self._end("time")
            return
        self.run.follow_rss(self.look)
        for collector in self._choice.collectors:
            self._late.begin(collector)
        if not self._late.is_ended:
            self.services.ticker.add(self._timer)

    def end_after_time(self) -> None:
        """Ends it, unless the run has done so."""
        self._timer.cancel()
        self._end("time")
        self.run.unfollow_rss(self.look)
        if self in self.run.attachments:
            self.run.attachments.remove(self)

    def end_with_run(self) -> None:
        """Ends it on the task's thread. An interrupt may cut it short: called again, it goes on."""
        if not self._end("run") and self._stopping.acquire(timeout=_STOP_TIMEOUT_S):
            # The ticker's thread has ended it: nothing of the next task on this thread is collected.
            self._stopping.release()

    def end_early(self, reason: str) -> None:
        """Ends the collectors, and leaves the entry open."""
        self.recordings.end_early(but=(), reason=reason)

    def _end(self, owner: _Owner) -> bool:
        """Ends it, unless another thread does. Returns: Whether this thread did."""
        if owner == "run":
            return self._complete_for(owner)
        with self._stopping:
            return self._complete_for(owner)

    def _complete_for(self, owner: _Owner) -> bool:
        is_mine = self._owner.setdefault("owner", owner) == owner
        if is_mine:
            self._complete()
        return is_mine

    def _complete(self) -> None:
        """Stops the collectors and completes the entry."""
        self._timer.cancel()
        begun = self._late.end()
        if self.ended is None:
            self.last_rss_bytes = self.read_rss()
            self._note_coroutine()
            self.ended = self.clock() if self.run.ended is None else self.run.ended
        self.entry.buffer()
        for collector in self._choice.collectors:
            if not begun.get(collector.name):
                reason = "The run ended before it had begun."
                self.recordings.append_outcome(collector, ArtifactStatus.SKIPPED, reason)
        self.recordings.stop()
        if not self.is_sealed:
            end: End = {"status": RunStatus.RUNNING, "finished_at": moment(time.time()), "duration_ms": 0.0}
            self.entry.append({"end": end})
            self.entry.flush()
            self.is_sealed = True
        self._on_sealed(self)

    def _note_coroutine(self) -> None:
        """Notes what the coroutine of an async task has used up to now, or up to its end."""
        found = self.services.coroutines.measured.get(self.thread_id)
        if found is not None and self.run.ended is None:  # After the end it is that of the thread's next task.
            self.coroutine_steps = found.steps
        else:
            self.coroutine_steps = self.run.coroutine_steps

    # The rest is used by the recordings and the saver.

    def options(self, collector: Collector) -> Any:
        """Returns: The options of a collector."""
        return self._choice.options.get(collector.name, collector.default_options)

    def write_start(self) -> None:
        """Does nothing: `open` has written it."""

    def append_text(self, collector: Collector, text: str, *, peak_rss_bytes: int | None = None) -> None:
        """Appends lines to a text artifact; they are in the spool when this returns."""
        self.entry.append(*text_records(collector.artifact_name, text))

    def save(self) -> None:
        """Writes the files of the artifacts. Runs on the saver's thread."""
        self.recordings.save()
        self.entry.close()
