"""What a worker process has while diagnostics are on; made after the fork, in `before_worker_boot`."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from typing import Any

from dramatiq import Broker, Message
from dramatiq.broker import MessageProxy

from .asking import CLEANUP_ACTOR, Sender, depth_of, set_sender, task_id_of
from .backlog import Backlog
from .capturing import Capturing
from .collector_names import expand
from .collectors import close_all, load, open_all
from .collectors.base import Collector
from .collectors.coroutines import CoroutineWatch
from .errors import GUARDED, SpoolError
from .forks import call_in_child, forget
from .frames import GarbagePause
from .hook import ProfileHook
from .late import Late
from .lazy_store import LazyStore
from .logs import get_logger
from .models import RunStatus
from .publisher import Publisher
from .rss import RssReader
from .rsswatch import RssWatch
from .rules import Judge
from .run import Run
from .sealer import Sealer
from .selection import NOTHING, Selection
from .settings import Settings
from .spool import Spool
from .switching import SwitchInterval
from .tasklog import TaskLog
from .ticker import Ticker
from .trigger_texts import collectors_of, parse_triggers
from .triggers import Triggers
from .vitals import Vitals, VitalsReader

#: Seconds that a boot that failed waits for the end of what it has started.
_UNDO_TIMEOUT_S = 5.0


class Process:
    """The collectors, the spool and the threads of this process, and its running runs.

    Parameters:
      settings: The settings.
      clock: What the times of runs are measured by, in seconds; it must not go back.
      ticker: Calls what happens at intervals; without it one by that clock, with a thread.
    """

    def __init__(
        self, settings: Settings, *, clock: Callable[[], float] = time.perf_counter, ticker: Ticker | None = None
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.settings = settings
        self.clock = clock
        self.hostname = socket.gethostname()
        self.pid = os.getpid()
        self.log = TaskLog(self.logger)
        self.ticker = Ticker(clock) if ticker is None else ticker
        self.rss = RssReader()
        self.spool = Spool(settings)
        self.profile_hook = ProfileHook()
        self.switch_interval = SwitchInterval()
        self.coroutines = CoroutineWatch()
        names = expand(settings.task_diagnostics) + expand(settings.task_diagnostics_on_request)
        self.collectors = load((*names, *collectors_of(parse_triggers(settings.triggers))), settings)
        self.selection = Selection(settings, self.collectors, self.log.warn)
        self.triggers = Triggers(settings, self.collectors, self.log.warn)
        self.judge = Judge(settings, self.log.warn)
        self.runs: dict[int, Run] = {}
        "Thread id -> the diagnosed run on it; a worker thread has one message at a time."
        self._inherited: dict[int, Run] = {}
        "In a forked process, the runs of the one that it was forked from."
        self.hung: set[Collector] = set()
        "Collectors of which a step did not return; they are left out from then on."
        self.unsaved: set[uuid.UUID] = set()
        "The ids of runs whose entries are not whole yet."
        self.store = LazyStore(settings, users=2)  # The publisher, and the captures.
        backlog = Backlog(self.spool, self.unsaved)
        self.sealer = Sealer(self, backlog)
        self.publisher = Publisher(self, backlog)
        self.capturing = Capturing(self)
        self.rss_watch = RssWatch(self)
        self._vitals = VitalsReader()
        self._messages: dict[int, MessageProxy] = {}

    def start(self) -> None:
        """Opens the spool and starts the threads; where one of these steps fails, those before it are undone."""
        with ExitStack() as undo:
            call_in_child(self._end_in_child)
            undo.callback(self._close)
            open_all(self.collectors, self)
            try:
                self.spool.open()
            except SpoolError as error:
                self.logger.error("%s Until then diagnostics are held in memory.", error)
                self.sealer.has_warned = True
            self.ticker.start()
            self.sealer.start()
            undo.callback(self.sealer.stop, _UNDO_TIMEOUT_S)
            self.publisher.start()
            undo.callback(self.publisher.stop, _UNDO_TIMEOUT_S)
            self.capturing.start()
            undo.pop_all()

    def _end_in_child(self) -> None:
        """Leaves to a process that a task forks the interpreter's own settings, and to this one its runs."""
        self._inherited, self.runs = self.runs, {}  # Kept: a Tracker that is let go of writes to the capture.
        self.switch_interval.end_in_child()
        GarbagePause.end_in_child()

    def write_vitals(self, runs: Sequence[Run]) -> None:
        """Leaves in the spool how it stands, for whoever salvages it if this process ends suddenly; fires triggers."""
        try:
            vitals = self._vitals.read()
            self._write_state(vitals)
            for run in runs:
                run.append_vitals(vitals)
            for run in runs:
                if run.late is not None:
                    run.late.look(vitals.rss_bytes)
        except GUARDED as error:  # As when the task uses up all descriptors: this look is lost, not the later ones.
            self.warn_once(("vitals", type(error)), error, "The state of the process could not be noted.")

    def _write_state(self, vitals: Vitals) -> None:
        try:
            self.spool.write_state(time.time(), vitals)
        except OSError as error:  # As when the disk is full; triggers go by the look all the same.
            self.warn_once("state", error, "The state of the process could not be noted.")

    def stop(self, timeout_s: float) -> None:
        """Publishes what it can within *timeout_s* seconds, and ends the threads; the rest waits in the spool."""
        stop_at = time.monotonic() + timeout_s
        self.capturing.stop()
        self.sealer.stop(timeout_s)
        self.publisher.stop(max(stop_at - time.monotonic(), 0.0))
        self.capturing.join(max(stop_at - time.monotonic(), 1.0))
        self._close()

    def _close(self) -> None:
        forget(self._end_in_child)
        self.ticker.stop()
        close_all(self.collectors)
        self.coroutines.close()
        self.rss.close()
        self.spool.close()
        self.log.write()

    def flush(self, timeout_s: float) -> bool:
        """Waits until everything sealed so far is published. Returns: Whether it is."""
        self.log.write()
        return self.publisher.flush(self.sealer.submitted, timeout_s)

    def begin(self, broker: Broker, message: MessageProxy) -> Run | None:
        """Makes the run of a message, to be started. Returns: The run, or None where nothing is selected."""
        if message.actor_name == CLEANUP_ACTOR:  # Never diagnosed itself; no task is told that it overlapped this one.
            set_sender(None)
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
        plan = None if choice is NOTHING else self.triggers.plan(broker, inner, choice)
        if plan is None and not choice.collectors and not choice.denied:
            set_sender(Sender(inner, True) if self.selection.samples else None)
            return None
        # Whatever interrupts this from here on, the run is known, and ended by `end`.
        run = self.runs[thread_id] = Run(self, message, broker.get_actor(message.actor_name), choice, plan)
        self.unsaved.add(run.run_id)
        self.rss_watch.wake()
        run.late = None if plan is None else Late(run, plan)
        set_sender(self._sender(inner, run))
        if choice.capture_id is not None:
            self.capturing.held.used(run.run_id)
        for other_id, other in tuple(self._messages.items()):
            if other_id != thread_id:
                run.overlap(task_id_of(other))
        return run

    def _sender(self, message: Message[Any], run: Run) -> Sender:
        depth = depth_of(message.options)
        passed_on = run.choice.requested and depth < self.settings.pass_on_depth
        return Sender(message, self.selection.samples, run.run_id, run.choice.request if passed_on else None, depth)

    def end(self, status: RunStatus, exception: BaseException | None = None) -> None:
        """Ends the run of this thread, if there is one, and hands it to the sealer; runs again after an interrupt."""
        thread_id = threading.get_ident()
        self._messages.pop(thread_id, None)
        run = self.runs.get(thread_id)
        if run is None:
            return
        if not run.sealed:
            run.stop(status, exception)
        self.sealer.submit(run)
        self.runs.pop(thread_id, None)

    def warn_once(self, key: Hashable, error: BaseException, text: str, *values: Any) -> None:
        """Logs a warning with the error's traceback the first time; after that at debug level. For any thread."""
        self.log.warn_once(key, error, text, *values)
