"""Builds and runs all parts of a worker process: collectors, spool, threads and runs; made after the fork."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from dramatiq import Broker, Message
from dramatiq.broker import MessageProxy

from ..collectors.names import expand
from ..collectors.registry import close_all, load, open_all
from ..collectors.services import Services, Since
from ..errors import GUARDED, SpoolError
from ..policy.keep_policy import KeepPolicy
from ..policy.propagation import CLEANUP_ACTOR, SendingTask, set_sending_task, task_id_of
from ..policy.selection import NOTHING, Choice, Selection
from ..policy.stuck_rule import StuckRule
from ..policy.traces import NO_TRACE, Trace, active_span, link_run, trace_of
from ..policy.trigger_rules import collectors_of, parse_triggers
from ..policy.triggers import Triggers
from ..runtime.forks import call_in_child, forget
from ..runtime.gc_pause import GcPause
from ..runtime.loggers import get_logger
from ..runtime.task_log import TaskLog
from ..runtime.ticker import Ticker
from ..settings import Settings
from ..settings.release import find_release
from ..spool.backlog import Backlog
from ..spool.directory import Spool
from ..statuses import RunStatus
from ..store.store import Store
from .actors import HostedActors
from .answers import Answers
from .attachments import Attachments
from .captures import CaptureClient
from .cleanup_schedule import Schedule
from .contact import Contact
from .executions import Execution, Executions
from .gil_stalls import GilStalls
from .heap_windows import HeapWindows
from .hung_collectors import HungCollectors
from .late_start import LateStart
from .process_watch import ProcessWatch
from .publisher import Publisher
from .run import Run
from .saver import RunSaver
from .stuck import StuckRuns
from .tuning import TUNING, Tuning
from .undiagnosed_run import UndiagnosedRun

#: Seconds that a failed boot waits for the end of each thread that it has started.
_UNDO_TIMEOUT_S = 5.0

#: Seconds that the end of the process's diagnostics waits for the ticker, which may wait for a disk.
_JOIN_S = 1.0


class WorkerProcess:
    """The collectors, the spool, the threads and the running runs of one worker process.

    Parameters:
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
        tuning: Tuning = TUNING,
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.settings = settings
        self.log = TaskLog(self.logger)
        self.services = Services(
            warn_once=self.log.warn_once,
            clock=clock,
            ticker=Ticker(clock) if ticker is None else ticker,
            release=find_release(settings.release),
        )
        self.spool = Spool(settings)
        names = expand(settings.task_diagnostics) + expand(settings.task_diagnostics_on_request)
        self._hosted = hosted
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
        self.hung = HungCollectors()
        "Collectors of which a step does not return; later runs skip them."
        self.unsaved: set[uuid.UUID] = set()
        "The ids of the runs whose entries are not complete."
        backlog = Backlog(self.spool, self.unsaved, max_held=tuning.max_held)
        self.captures = CaptureClient(self.selection, hosted.can_run)
        self._schedule = Schedule(settings, hosted.listener) if settings.cleanup_interval else None
        self._store = Store(settings)
        self.heap_windows = HeapWindows(self.services, tuning=tuning)
        self.publisher = Publisher(
            self.services,
            self.spool,
            backlog,
            self._store,
            self.runs,
            self.captures,
            lambda key: self.attachments.settled(key),
            lambda nothing_waits: self.attachments.forget_lost(nothing_waits),
            self.heap_windows,
            tuning=tuning,
        )
        self.saver = RunSaver(self.spool, backlog, self.log, self.publisher.thread.wake, tuning)
        stalls = GilStalls(self.services, is_on=settings.watchdog)
        self._watch = ProcessWatch(self.services, self.spool, self.runs, stalls, tuning)
        self.messages = self.services.messages
        self._undiagnosed: dict[int, Since] = {}
        "Thread id -> the start of the last message on it for which nothing was selected, as `messages` has it."
        self._ending = threading.Lock()
        "Held while the run of a thread is looked for at its end, and while one is registered in the middle of a task."
        executions = Executions(self.messages, self.runs, self.services.clock)
        self.attachments = Attachments(
            self.services, self.spool, self.selection, self.hung, self.unsaved, self.saver.submit, self._register
        )
        self.contact = Contact(
            self.services,
            self.spool,
            self._store,
            hosted,
            self.captures,
            Answers(self.services, executions, stalls, self.attachments),
            self.publisher,
            executions.reported,
            StuckRuns(self.services, self.runs, StuckRule(after=settings.stuck_after)),
            self._schedule,
            tuning=tuning,
        )

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
            undo.callback(self.publisher.stop, 0.0)
            self.contact.watch_coroutines()  # Before the first task: its coroutine would not be seen later.
            self.contact.thread.start()
            undo.pop_all()

    def _end_in_child(self) -> None:
        """Runs in a process that a task has forked: restores the interpreter's settings there, and ends no run."""
        self._inherited.update(self.runs)  # Kept: a Tracker writes to its file when its last reference is dropped.
        self.runs.clear()
        self._ending = threading.Lock()  # The thread that holds the other one does not exist here.
        self.heap_windows.end_in_child()
        self.services.counters.gc_clock.end_in_child()
        self.services.switch_interval.end_in_child()
        GcPause.end_in_child()

    def stop(self, timeout_s: float) -> None:
        """Publishes runs for at most *timeout_s* seconds, and ends the threads; other runs wait in the spool."""
        stop_at = time.monotonic() + timeout_s
        for run in tuple(self.runs.values()):  # Their tasks outlast the worker, whose hooks will not end them.
            run.abandon()
        if self._schedule is not None:
            self._schedule.stop()
        self.selection.captures = None
        self.saver.thread.stop(timeout_s)
        self.publisher.stop(max(stop_at - time.monotonic(), 0.0))
        self.contact.stop(max(stop_at - time.monotonic(), 0.0))
        self._close()
        if self._schedule is not None:
            self._schedule.join()

    def _close(self) -> None:
        forget(self._end_in_child)
        self.services.ticker.stop(_JOIN_S)
        self.services.counters.gc_clock.close()
        close_all(self.collectors)
        self.services.coroutines.close()
        self.services.rss.close()
        for run in tuple(self.runs.values()):
            run.close()
        self.spool.close()
        self._store.close()
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
        if thread_id in self.runs:  # Its end failed, or the task executes another one on its own thread.
            self.end(RunStatus.INTERRUPTED)
        since = time.time(), self.services.clock()
        self.messages[thread_id] = inner, since
        if self.runs:
            task_id = task_id_of(inner)
            for run in tuple(self.runs.values()):
                if run.thread_id != thread_id:
                    run.overlap(task_id)
        choice = self.selection(broker, inner)
        plan = None if choice is NOTHING else self._triggers.plan(broker, inner, choice)
        if plan is None and not choice.collectors and not choice.denied:
            set_sending_task(SendingTask(inner, self.selection.message_options) if self.selection.samples else None)
            self._undiagnosed[thread_id] = since
            return None
        if self.saver.is_behind:
            self.saver.left_out += 1
            set_sending_task(None)
            self._undiagnosed[thread_id] = since
            return None
        span, trace = self._trace_of(inner)
        # The run is registered now: if an interrupt strikes below, `end` still finds and ends it.
        run = self.runs[thread_id] = Run(
            self.services,
            self.spool,
            self._keep_policy,
            self.hung,
            inner,
            broker.get_actor(inner.actor_name),
            choice,
            () if plan is None else plan.declared,
            None if choice.without_capture is None else self._names_without(broker, inner, choice.without_capture),
            trace,
        )
        self.unsaved.add(run.run_id)
        self._watch.wake()
        if span is not None:
            self._link(span, run)
        run.late = None if plan is None else LateStart(run, plan)
        run.sending = self._sender(inner, run)
        set_sending_task(run.sending)
        if choice.capture_id is not None:
            self.captures.begun(run.run_id, choice.capture_id)
        for other_id, (other, _) in tuple(self.messages.items()):
            if other_id != thread_id:
                run.overlap(task_id_of(other))
        return run

    def note_failure(self, step: str, error: BaseException) -> None:
        """Logs that the diagnostics of a task failed to begin or to end. The task goes on."""
        self.services.warn_once((step, type(error)), error, "The diagnostics of a task failed to %s.", step)

    def _stop(self, run: Run, status: RunStatus, exception: BaseException | None) -> None:
        """Ends a run. If that fails twice, as where there is no memory, the run has its status and its time."""
        try:
            run.stop(status, exception)
        except GUARDED:
            try:
                run.stop(status, exception)
            except GUARDED as error:
                self.services.warn_once(("end", type(error)), error, "The end of a run is not whole.")
                run.seal_with(status)

    def _register(self, execution: Execution) -> Run | None:
        """Makes and registers the run of a task for which nothing was selected. Runs on the contact's thread.

        Returns:
          The run; None where the task has ended, or is only just being taken up.
        """
        actor = self._hosted.find(execution.message.actor_name)
        if actor is None or self._undiagnosed.get(execution.thread_id) != execution.since:
            return None
        run = UndiagnosedRun(self.services, self.spool, self._keep_policy, self.hung, execution, actor)
        self.unsaved.add(run.run_id)
        run.open()
        with self._ending:
            goes_on = self.messages.get(execution.thread_id) == (execution.message, execution.since)
            if goes_on:
                self.runs[execution.thread_id] = run
        if not goes_on:
            self.unsaved.discard(run.run_id)
            self.spool.discard(run.entry, ())
            return None
        self._watch.wake()
        return run

    def _trace_of(self, message: Message[Any]) -> tuple[Any, Trace]:
        """Returns: The active span, or None; and the trace of the run of the message."""
        try:
            span = active_span()
            return span, trace_of(span, message.options)
        except GUARDED as error:  # It calls code of the tracing libraries.
            self.services.warn_once(("trace", type(error)), error, "The trace of a run could not be read.")
            return None, NO_TRACE

    def _link(self, span: Any, run: Run) -> None:
        try:
            link_run(span, run.run_id, self.settings.public_url)
        except GUARDED as error:
            self.services.warn_once(("span", type(error)), error, "A span could not be linked to its run.")

    def _names_without(self, broker: Broker, message: Message[Any], choice: Choice) -> list[str]:
        """Returns: The artifacts that a run has by this choice, which is the one without its capture."""
        plan = None if choice is NOTHING else self._triggers.plan(broker, message, choice)
        late = () if plan is None else plan.declared
        declared = (*choice.collectors, *choice.denied, *late)
        return [collector.artifact_name for collector in declared]

    def _sender(self, message: Message[Any], run: Run) -> SendingTask:
        options = self.selection.message_options
        sender = SendingTask(message, options if self.selection.samples else None, run.run_id)
        if run.choice.requested and (depth := options.depth(message.options)) < self.settings.pass_on_depth:
            sender.request, sender.depth = run.choice.request, depth
        return sender

    def end(self, status: RunStatus, exception: BaseException | None = None) -> None:
        """Ends the run of this thread, if there is one, and hands it to the saver.

        An interrupt may cut it short at any point: called again, it goes on.
        """
        thread_id = threading.get_ident()
        with self._ending:
            ended = self.messages.pop(thread_id, None)
            run = self.runs.get(thread_id)
        if run is not None:
            if not run.sealed:
                self._stop(run, status, exception)
            run.sending = None  # It has the message, whose arguments would wait with the run until it is saved.
            self.saver.submit(run)
            self.runs.pop(thread_id, None)
        if ended is not None:
            self.heap_windows.ended(ended[0].actor_name)
