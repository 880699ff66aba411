"""Keeps the process in contact with the database: it reports itself, learns what is asked of it, and answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from dramatiq.asyncio import get_event_loop_thread

from ..collectors.services import Services
from ..errors import DiagnosticsError, SchemaError, StoreUnavailableError
from ..runtime.background import BackgroundThread
from ..runtime.loggers import RareWarning, get_logger
from ..runtime.own_threads import own_cpu_s
from ..spool.directory import Spool
from ..store.store import Store
from ..store.worker_actors import note_actors
from ..store.workers import ExecutedTask, WorkerReport, attention_of, note_goodbye, note_worker
from ..version import own_version
from .actors import HostedActors
from .answers import Answers
from .captures import CaptureClient
from .publisher import Publisher
from .stuck import StuckRuns
from .tuning import TUNING, Tuning

#: Seconds that the end of the thread waits for a statement that is under way.
_GRACE_S = 1.0


class Contact:
    """Reports the process, looks for captures and questions, answers these, and keeps the schedule of the cleanup.

    It has a thread of its own: while an object store does not answer, the publisher waits for it, and the process would
    seem to be lost just when somebody wants to know what its tasks wait for.

    Parameters:
      hosted: The workers of the process.
      tasks: Returns the tasks that the process executes.
      stuck: Finds the runs that are stuck.
      keep_schedule: Enqueues the cleanup when it is due; called every few seconds.
    """

    def __init__(
        self,
        services: Services,
        spool: Spool,
        store: Store,
        hosted: HostedActors,
        captures: CaptureClient,
        answers: Answers,
        publisher: Publisher,
        tasks: Callable[[], list[ExecutedTask]],
        stuck: StuckRuns,
        keep_schedule: Callable[[Store], None] | None = None,
        *,
        tuning: Tuning = TUNING,
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.thread = BackgroundThread("contact", self._step, self._finish, backoff_s=tuning.backoff_s)
        self._warn_rarely = RareWarning(self.logger)
        self._services = services
        self._spool = spool
        self._store = store
        self._hosted = hosted
        self._captures = captures
        self._answers = answers
        self._publisher = publisher
        self._tasks = tasks
        self._stuck = stuck
        self._keep_schedule = keep_schedule
        self._tuning = tuning
        self._due = dict.fromkeys(("report", "captures", "actors", "schedule"), 0.0)
        self._noted_actors: Mapping[str, str] = {}
        "The actors that this process last said it has."
        self._is_out_of_contact = False
        "Whether the store was out of reach at the last step."
        self._attention: int | None = None
        "The number of the row of this process when it last looked at what is asked of it."
        self._version = own_version()
        self._began = time.monotonic()

    def watch_coroutines(self) -> None:
        """Sees the coroutines of async actors that begin from now on, if there is an event loop. For any thread."""
        loop_thread = get_event_loop_thread()
        if loop_thread is not None:
            self._services.coroutines.watch(loop_thread)

    def stop(self, timeout_s: float) -> None:
        """Says goodbye, and ends the thread."""
        self.thread.stop(timeout_s, grace_s=_GRACE_S)

    # The rest runs on its own thread.

    def _step(self) -> float:
        try:
            self.watch_coroutines()
            self._stuck.look()  # First: a run may be stuck because the database does not answer.
            self._store.open_database()
            self._look_at_questions(self._note())
            self._stuck.note(self._store)
            self._note_actors()
            if self._keep_schedule is not None and self._is_due("schedule", self._tuning.schedule_s):
                self._keep_schedule(self._store)
        except DiagnosticsError as error:
            self._store.reopen()
            self._warn(error)
            self.thread.back_off()
            return 0.0
        self._is_out_of_contact = False
        self.thread.recovered()
        return self._tuning.watched_s if self._answers.is_watched else self._tuning.attention_s

    def _warn(self, error: DiagnosticsError) -> None:
        """Warns. Of a store that is out of reach it warns at the second time, unless the publisher has done so.

        An empty SQLite file, in place of one that was removed, gets its tables before that.
        """
        is_away = isinstance(error, StoreUnavailableError | SchemaError)
        if not is_away or (self._is_out_of_contact and not self._publisher.thread.pause_left_s):
            self._warn_rarely("The process could not talk to the database, and tries again: %s", error)
        self._is_out_of_contact = is_away

    def _note(self) -> int | None:
        """Reports the process if that is due. Returns: The number by which it sees whether something was asked."""
        with self._store.session() as session:
            if self._is_due("report", self._tuning.report_s):
                return note_worker(session, self._report())
            return attention_of(session, self._services.worker_id)

    def _report(self) -> WorkerReport:
        own_s = own_cpu_s()
        return WorkerReport(
            worker_id=self._services.worker_id,
            hostname=self._services.hostname,
            pid=self._services.pid,
            version=self._version,
            spool_bytes=self._spool.size_bytes,
            unpublished_s=self._publisher.unpublished_s(),
            queues=sorted(set(self._hosted.queues().values())),
            threads=self._hosted.thread_count,
            rss_bytes=self._services.rss.rss_bytes(),
            cpu_s=round(time.process_time(), 3),
            diagnostics_cpu_s=None if own_s is None else round(own_s, 3),
            tasks=self._tasks(),
            age_s=round(time.monotonic() - self._began, 3),
        )

    def _look_at_questions(self, attention: int | None) -> None:
        is_asked = attention != self._attention
        if is_asked or self._captures.actor_names or self._is_due("captures", self._tuning.captures_s):
            with self._store.session() as session:
                self._captures.look(session)
        if is_asked or self._answers.is_open:
            self._answers.give(self._store, self._services.worker_id)
        self._attention = attention

    def _note_actors(self) -> None:
        """Says which actors this process has: at its start, after a change and hourly."""
        actors = self._hosted.queues()
        if self._is_due("actors", self._tuning.actors_s) or actors != self._noted_actors:
            with self._store.session() as session:
                note_actors(session, actors)
            self._noted_actors = actors

    def _finish(self, _stop_at: float) -> None:
        try:
            if self._publisher.unpublished_s() is not None:
                return  # The process counts as lost: its runs wait on its host.
            with self._store.session() as session:
                note_goodbye(session, self._services.worker_id)
        except DiagnosticsError as error:
            self.logger.warning("The process could not say goodbye: %s", error)

    def _is_due(self, duty: str, interval_s: float) -> bool:
        now = time.monotonic()
        if now < self._due[duty]:
            return False
        self._due[duty] = now + interval_s
        return True
