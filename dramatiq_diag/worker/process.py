"""Builds and runs all parts of a worker process: collectors, spool, threads and runs; made after the fork."""

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
from ..policy.selection import NOTHING, Choice, Selection
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
from ..store.store import Store
from .captures import CaptureClient
from .cleanup_schedule import Schedule
from .late_start import LateStart
from .publisher import Publisher
from .rss_watch import RssWatch
from .run import Run
from .saver import RunSaver

#: Seconds that a failed boot waits for the end of each thread that it has started.
_UNDO_TIMEOUT_S = 5.0


class HostedActors(Protocol):
    """The actors that the workers of this process execute."""

    def can_run(self, actor_name: str) -> bool:
        """Returns: Whether a worker executes an actor of that name."""

    def actors(self) -> Mapping[str, str]:
        """Returns: The name of each actor -> its queue."""

    def listener(self) -> Broker | None:
        """Returns: A broker whose worker in this process listens to the queue of the cleanup; None without one."""


class WorkerProcess:
    """The collectors, the spool, the threads and the running runs of one worker process.

    Parameters:
      settings: The settings.
      hosted: The actors that the process executes.
      clock: Gives the time in seconds for the times of runs; it must not go back.
      ticker: Calls functions at intervals; by default a ticker by that clock, with a thread.
    """

    def __init__(
        self,
        settings: Settings,
        hosted: HostedActors,
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
        "Thread id -> its diagnosed run; a worker thread processes one message at a time."
        self._inherited: dict[int, Run] = {}
        "In a forked process: the runs of the process that it was forked from."
        self.stuck: set[Collector] = set()
        "Collectors of which a step did not return; later runs skip them."
        self.unsaved: set[uuid.UUID] = set()
        "The ids of the runs whose entries are not complete."
        backlog = Backlog(self.spool, self.unsaved)
        self.captures = CaptureClient(self.selection, hosted.can_run)
        self._schedule = Schedule(settings, hosted.listener) if settings.cleanup_interval else None
        self.publisher = Publisher(
            self.services,
            self.spool,
            backlog,
            Store(settings),
            self.runs,
            self.captures,
            hosted.actors,
            self._schedule,
        )
        self.saver = RunSaver(self.spool, backlog, self.log, self.publisher.thread.wake)
        self._rss_watch = RssWatch(self.services, self.runs, self._look_further)
        self._vitals = MemoryStateReader()
        self._messages: dict[int, Message[Any]] = {}
        "Thread id -> the message that is being processed on it."

    def start(self) -> None:
        """Opens the spool and starts the threads. If a step fails, the steps before it are undone."""
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
            self.saver.thread.start()
            undo.callback(self.saver.thread.stop, _UNDO_TIMEOUT_S)
            self.publisher.thread.start()
            undo.pop_all()

    def _end_in_child(self) -> None:
        """Runs in a process that a task has forked: restores the interpreter's settings there, and ends no run."""
        self._inherited.update(self.runs)  # Kept: a Tracker writes to its file when its last reference is dropped.
        self.runs.clear()
        self.services.switch_interval.end_in_child()
        GcPause.end_in_child()

    def _look_further(self, runs: Sequence[Run]) -> None:
        """Writes the memory state of the process, so that a sudden death can be explained. Then checks the triggers."""
        try:
            vitals = self._vitals.read()
            self._write_state(vitals)
            for run in runs:
                run.note_memory_state(vitals)
            for run in runs:
                if run.late is not None:
                    run.late.look(vitals.rss_bytes)
        except GUARDED as error:  # As when a task uses up all descriptors: the next look may succeed.
            self.services.warn_once(("vitals", type(error)), error, "The state of the process could not be noted.")

    def _write_state(self, vitals: MemoryState) -> None:
        try:
            self.spool.write_state(time.time(), vitals)
        except OSError as error:  # As when the disk is full. The triggers are checked all the same.
            self.services.warn_once("state", error, "The state of the process could not be noted.")

    def stop(self, timeout_s: float) -> None:
        """Publishes runs for at most *timeout_s* seconds, and ends the threads; other runs wait in the spool."""
        stop_at = time.monotonic() + timeout_s
        if self._schedule is not None:
            self._schedule.stop()
        self.selection.captures = None
        self.saver.thread.stop(timeout_s)
        self.publisher.stop(max(stop_at - time.monotonic(), 0.0))
        self._close()
        if self._schedule is not None:
            self._schedule.join()

    def _close(self) -> None:
        forget(self._end_in_child)
        self.services.ticker.stop()
        close_all(self.collectors)
        self.services.coroutines.close()
        self.services.rss.close()
        self.spool.close()
        self.log.write()

    def flush(self, timeout_s: float) -> bool:
        """Waits until all runs that have ended are published. Returns: True when they are; False after the timeout."""
        self.log.write()
        return self.publisher.flush(self.saver.submitted, timeout_s)

    def begin(self, broker: Broker, message: MessageProxy) -> Run | None:
        """Makes and registers the run of a message. Returns: The run, not started; None where nothing is selected."""
        inner: Any = getattr(message, "_message", message)  # The proxy's look-ups are most of the cost of an idle hook.
        if inner.actor_name == CLEANUP_ACTOR:  # It is never diagnosed, and no run lists it as overlapping.
            set_sending_task(None)
            return None
        thread_id = threading.get_ident()
        self._messages[thread_id] = inner
        if self.runs:
            task_id = task_id_of(inner)
            for run in tuple(self.runs.values()):
                if run.thread_id != thread_id:
                    run.overlap(task_id)
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
            inner,
            broker.get_actor(inner.actor_name),
            choice,
            () if plan is None else plan.declared,
            None if choice.without_capture is None else self._names_without(broker, inner, choice.without_capture),
        )
        self.unsaved.add(run.run_id)
        self._rss_watch.wake()
        run.late = None if plan is None else LateStart(run, plan)
        run.sending = self._sender(inner, run)
        set_sending_task(run.sending)
        if choice.capture_id is not None:
            self.captures.begun(run.run_id, choice.capture_id)
        for other_id, other in tuple(self._messages.items()):
            if other_id != thread_id:
                run.overlap(task_id_of(other))
        return run

    def _names_without(self, broker: Broker, message: Message[Any], choice: Choice) -> list[str]:
        """Returns: The artifacts that a run has by this choice, which is the one without its capture."""
        plan = None if choice is NOTHING else self._triggers.plan(broker, message, choice)
        late = () if plan is None else plan.declared
        declared = (*choice.collectors, *choice.denied, *late)
        return [collector.artifact_name for collector in declared]

    def _sender(self, message: Message[Any], run: Run) -> SendingTask:
        if run.choice.requested and (depth := depth_of(message.options)) < self.settings.pass_on_depth:
            return SendingTask(message, self.selection.samples, run.run_id, run.choice.request, depth)
        return SendingTask(message, self.selection.samples, run.run_id)

    def end(self, status: RunStatus, exception: BaseException | None = None) -> None:
        """Ends the run of this thread, if there is one, and hands it to the saver.

        An interrupt may cut it short at any point: called again, it goes on.
        """
        thread_id = threading.get_ident()
        self._messages.pop(thread_id, None)
        run = self.runs.get(thread_id)
        if run is None:
            return
        if not run.sealed:
            run.stop(status, exception)
        self.saver.submit(run)
        self.runs.pop(thread_id, None)
