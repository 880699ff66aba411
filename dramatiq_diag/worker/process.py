"""What a worker process has while diagnostics are on; made after the fork, in `before_worker_boot`."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

from dramatiq import Broker, Message
from dramatiq.broker import MessageProxy

from ..collectors.base import Collector
from ..collectors.names import expand
from ..collectors.registry import close_all, load, open_all
from ..collectors.services import Services
from ..errors import GUARDED, SpoolError
from ..policy.keep_policy import KeepPolicy
from ..policy.propagation import CLEANUP_ACTOR, SendingTask, depth_of, set_sending_task, task_id_of
from ..policy.selection import NOTHING, Selection
from ..policy.trigger_rules import collectors_of, parse_triggers
from ..policy.triggers import Triggers
from ..runtime.forks import call_in_child, forget
from ..runtime.gc_pause import GcPause
from ..runtime.loggers import get_logger
from ..runtime.memory_state import MemoryState, MemoryStateReader
from ..runtime.task_log import TaskLog
from ..runtime.ticker import Ticker
from ..settings import Settings
from ..spool.backlog import Backlog
from ..spool.directory import Spool
from ..statuses import RunStatus
from ..store.lazy_store import LazyStore
from ..store.store import Store
from .captures import CaptureClient
from .late_start import Late
from .publisher import Publisher
from .rss_watch import RssWatch
from .run import Run
from .saver import RunSaver

#: Seconds that a boot that failed waits for the end of what it has started.
_UNDO_TIMEOUT_S = 5.0


class HostedActors(Protocol):
    """The actors that the workers of this process execute."""

    def can_run(self, actor_name: str) -> bool:
        """Returns: Whether one of the workers executes an actor of that name."""

    def actors(self) -> Mapping[str, str]:
        """Returns: The actors, each with its queue."""


class WorkerProcess:
    """The collectors, the spool, the threads and the running runs of one worker process.

    Parameters:
      settings: The settings.
      hosted: The actors that the process executes.
      keep_schedule: Enqueues the cleanup when it is due; the publisher calls it every few seconds.
      clock: The clock that times of runs are measured by, in seconds; it must not go back.
      ticker: Calls functions at intervals; by default one by that clock, with a thread.
    """

    def __init__(
        self,
        settings: Settings,
        hosted: HostedActors,
        keep_schedule: Callable[[Store], None] | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
        ticker: Ticker | None = None,
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.settings = settings
        self.log = TaskLog(self.logger)
        self.services = Services(log=self.log, clock=clock, ticker=Ticker(clock) if ticker is None else ticker)
        self.spool = Spool(settings)
        names = expand(settings.task_diagnostics) + expand(settings.task_diagnostics_on_request)
        self.collectors = load((*names, *collectors_of(parse_triggers(settings.triggers))), settings)
        self.selection = Selection(
            self.collectors,
            settings.task_diagnostics,
            settings.task_diagnostics_on_request,
            options_on_request=settings.options_on_request,
            sample_rate=settings.sample_rate,
            warn=self.log.warn,
        )
        self._triggers = Triggers(self.collectors, settings.triggers, settings.pyinstrument_engine, self.log.warn)
        self._keep_policy = KeepPolicy(settings.keep_if, self.log.warn)
        self.runs: dict[int, Run] = {}
        "Thread id -> the diagnosed run on it; a worker thread has one message at a time."
        self._inherited: dict[int, Run] = {}
        "In a forked process, the runs of the one that it was forked from."
        self.stuck: set[Collector] = set()
        "Collectors of which a step did not return; they are left out from then on."
        self.unsaved: set[uuid.UUID] = set()
        "The ids of runs whose entries are not complete yet."
        store = LazyStore(settings, users=2)  # The publisher, and the captures.
        backlog = Backlog(self.spool, self.unsaved)
        self.saver = RunSaver(self.spool, backlog, self.log)
        self.publisher = Publisher(self.services, self.spool, backlog, store, self.runs, keep_schedule)
        self.captures = CaptureClient(store, self.selection, hosted.can_run, hosted.actors)
        self._rss_watch = RssWatch(self.services, self.runs, self._look_further)
        self._vitals = MemoryStateReader()
        self._messages: dict[int, MessageProxy] = {}

    def start(self) -> None:
        """Opens the spool and starts the threads; where one of these steps fails, those before it are undone."""
        with ExitStack() as undo:
            call_in_child(self._end_in_child)
            undo.callback(self._close)
            open_all(self.collectors, self.services)
            try:
                self.spool.open()
            except SpoolError as error:
                self.logger.error("%s Until then diagnostics are held in memory.", error)
                self.saver.has_warned = True
            self.services.ticker.start()
            self.saver.start()
            undo.callback(self.saver.stop, _UNDO_TIMEOUT_S)
            self.publisher.start()
            undo.callback(self.publisher.stop, _UNDO_TIMEOUT_S)
            self.captures.start()
            undo.pop_all()

    def _end_in_child(self) -> None:
        """Leaves to a process that a task forks the interpreter's own settings, and to this one its runs."""
        self._inherited.update(self.runs)  # Kept: a Tracker whose reference is dropped writes to the capture.
        self.runs.clear()
        self.services.switch_interval.end_in_child()
        GcPause.end_in_child()

    def _look_further(self, runs: Sequence[Run]) -> None:
        """Writes the memory state of the process, so that a sudden death can be explained. Then fires triggers."""
        try:
            vitals = self._vitals.read()
            self._write_state(vitals)
            for run in runs:
                run.note_memory_state(vitals)
            for run in runs:
                if run.late is not None:
                    run.late.look(vitals.rss_bytes)
        except GUARDED as error:  # As when the task uses up all descriptors: this look is lost, not the later ones.
            self.services.warn_once(("vitals", type(error)), error, "The state of the process could not be noted.")

    def _write_state(self, vitals: MemoryState) -> None:
        try:
            self.spool.write_state(time.time(), vitals)
        except OSError as error:  # As when the disk is full; triggers go by the look all the same.
            self.services.warn_once("state", error, "The state of the process could not be noted.")

    def stop(self, timeout_s: float) -> None:
        """Publishes what it can within *timeout_s* seconds, and ends the threads; the rest waits in the spool."""
        stop_at = time.monotonic() + timeout_s
        self.captures.stop()
        self.saver.stop(timeout_s)
        self.publisher.stop(max(stop_at - time.monotonic(), 0.0))
        self.captures.join(max(stop_at - time.monotonic(), 1.0))
        self._close()

    def _close(self) -> None:
        forget(self._end_in_child)
        self.services.ticker.stop()
        close_all(self.collectors)
        self.services.coroutines.close()
        self.services.rss.close()
        self.spool.close()
        self.log.write()

    def flush(self, timeout_s: float) -> bool:
        """Waits until everything sealed so far is published. Returns: Whether it is."""
        self.log.write()
        return self.publisher.flush(self.saver.submitted, timeout_s)

    def begin(self, broker: Broker, message: MessageProxy) -> Run | None:
        """Makes the run of a message, to be started. Returns: The run, or None where nothing is selected."""
        if message.actor_name == CLEANUP_ACTOR:  # Never diagnosed itself; no task is told that it overlapped this one.
            set_sending_task(None)
            return None
        thread_id = threading.get_ident()
        self._messages[thread_id] = message
        if self.runs:
            task_id = task_id_of(message)
            for run in tuple(self.runs.values()):
                if run.thread_id != thread_id:
                    run.overlap(task_id)
        inner: Any = getattr(message, "_message", message)  # The proxy's look-ups are most of what an idle hook costs.
        choice = self.selection(broker, inner)
        plan = None if choice is NOTHING else self._triggers.plan(broker, inner, choice)
        if plan is None and not choice.collectors and not choice.denied:
            set_sending_task(SendingTask(inner, True) if self.selection.samples else None)
            return None
        # The run is registered now: if an interrupt strikes below, `end` still finds and ends it.
        run = self.runs[thread_id] = Run(
            self.services,
            self.spool,
            self._keep_policy,
            self.stuck,
            message,
            broker.get_actor(message.actor_name),
            choice,
            () if plan is None else plan.declared,
        )
        self.unsaved.add(run.run_id)
        self._rss_watch.wake()
        run.late = None if plan is None else Late(run, plan)
        set_sending_task(self._sender(inner, run))
        if choice.capture_id is not None:
            self.captures.held.used(run.run_id)
        for other_id, other in tuple(self._messages.items()):
            if other_id != thread_id:
                run.overlap(task_id_of(other))
        return run

    def _sender(self, message: Message[Any], run: Run) -> SendingTask:
        depth = depth_of(message.options)
        passed_on = run.choice.requested and depth < self.settings.pass_on_depth
        return SendingTask(
            message, self.selection.samples, run.run_id, run.choice.request if passed_on else None, depth
        )

    def end(self, status: RunStatus, exception: BaseException | None = None) -> None:
        """Ends the run of this thread, if there is one, and hands it to the saver; runs again after an interrupt."""
        thread_id = threading.get_ident()
        self._messages.pop(thread_id, None)
        run = self.runs.get(thread_id)
        if run is None:
            return
        if not run.sealed:
            run.stop(status, exception)
        self.saver.submit(run)
        self.runs.pop(thread_id, None)
