"""Connects diagnostics to Dramatiq's hooks."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from dramatiq import Broker, Message, Middleware, Worker
from dramatiq.broker import MessageProxy
from dramatiq.logging import get_logger
from dramatiq.middleware import Interrupt

from .errors import DiagnosticsError
from .policy.propagation import (
    DUE_OPTION,
    KEEP_IF_OPTION,
    OPTION,
    SAMPLE_RATE_OPTION,
    TRIGGERS_OPTION,
    prepare,
    set_sending_task,
)
from .settings import Settings
from .statuses import RunStatus

if TYPE_CHECKING:
    from .worker.boot import Workers
    from .worker.process import WorkerProcess
    from .worker.tuning import Tuning


class Diagnostics(Middleware):
    """Collects diagnostics of the tasks that a worker executes. Add it last, so that it measures the task alone.

    Parameters:
      settings: The settings; without them they are read from the environment.
      tuning: The intervals and limits of the threads in a worker process, for tests.

    Raises:
      SettingsError: When a setting is wrong.

    Note:
      A process that only constructs it and sends messages starts nothing and touches no file.
    """

    _workers: Workers | None = None
    "The booted workers of this process; None before the first. Each middleware has its own."

    def __init__(self, settings: Settings | None = None, *, tuning: Tuning | None = None) -> None:
        self.logger = get_logger(__name__, type(self))
        self._tuning = tuning
        self.settings = Settings.load(settings)
        self.process: WorkerProcess | None = None
        "The parts of this worker process; None outside a worker, and while nothing can be selected."

    @property
    def actor_options(self) -> set[str]:
        return {OPTION, SAMPLE_RATE_OPTION, KEEP_IF_OPTION, TRIGGERS_OPTION}

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        if self.settings.off or not self._is_first_of(broker):
            return
        if sys.platform == "win32":
            self.logger.error("Nothing is collected: the spool needs POSIX locks, which Windows does not have.")
            return
        workers = self._workers_of_this_process()
        with workers.lock:
            try:
                self.process = workers.join(broker, worker)
            except Exception as error:
                known = isinstance(error, DiagnosticsError)
                text = "Diagnostics cannot start, and this worker's tasks run without them: %s"
                self.logger.error(text, error, exc_info=None if known else error)

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        if self._workers is None:
            return
        with self._workers.lock:
            if self._workers.leave(worker):
                self.process = None
                self._workers.stop()

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        prepare(message)

    def before_delay_message(self, broker: Broker, message: MessageProxy) -> None:
        if self.process is not None:  # Dramatiq enqueues it again when it is due, without its `eta`.
            message.options[DUE_OPTION] = message.options.get("eta")

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        process = self.process
        if process is None:
            return
        try:
            run = process.begin(broker, message)
            if run is None:
                return
            for enter in run.start():
                try:
                    enter()  # Right here; see `Recording.enter`.
                except Exception as error:  # noqa: BLE001 - the recording decides.
                    run.recordings.enter_error = error
        except BaseException as error:  # Dramatiq would take it for a failure of the task, were it no Exception.
            if isinstance(error, Interrupt):
                raise
            process.note_failure("begin", error)

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any | None = None,
        exception: BaseException | None = None,
    ) -> None:
        if self.process is not None:
            # A message that another middleware failed goes to the dead letters; Dramatiq may not even have executed it.
            is_failed = exception is not None or message.failed
            self._end(self.process, RunStatus.FAILED if is_failed else RunStatus.SUCCEEDED, exception)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        if self.process is not None:
            self._end(self.process, RunStatus.SKIPPED)

    def after_ack(self, broker: Broker, message: MessageProxy) -> None:
        set_sending_task(None)
        process = self.process
        if process is not None:  # After the acknowledgement, as a look takes up to milliseconds.
            process.heap_windows.look()

    after_nack = after_ack

    def flush(self, timeout_s: float) -> bool:
        """Waits until all runs that have ended are published.

        Parameters:
          timeout_s: Seconds to wait at most.

        Returns:
          True when they are published; False after the timeout, or if one of them is lost.
        """
        return self.process is None or self.process.flush(timeout_s)

    def _workers_of_this_process(self) -> Workers:
        """Returns: One object for all threads that boot workers. Made here: its lock must not be older than a fork."""
        from .worker.boot import Workers  # SQLAlchemy, pydantic and psutil: a process that only sends needs none.

        workers: Workers = vars(self).setdefault("_workers", Workers(self.settings, self._tuning))
        if workers.pid != os.getpid():  # A copy: a process forked while it had workers.
            workers = self._workers = Workers(self.settings, self._tuning)
        return workers

    def _is_first_of(self, broker: Broker) -> bool:
        """Returns: False where the broker has another `Diagnostics` before this: two would measure each other."""
        first = next((middleware for middleware in broker.middleware if isinstance(middleware, Diagnostics)), self)
        if first is not self:
            self.logger.error("The broker has Diagnostics twice: the first works, and this one does not.")
        return first is self

    def _end(self, process: WorkerProcess, status: RunStatus, exception: BaseException | None = None) -> None:
        while True:
            try:
                process.end(status, exception)
                return
            except Interrupt as interrupt:
                # A time limit that strikes here was meant for a function that has already ended: without this
                # middleware it would be disarmed by now. So it does not change the task's outcome.
                process.log.say(logging.DEBUG, "%r struck after the task had ended.", interrupt)
            except BaseException as error:  # noqa: BLE001 - as above, and it is logged.
                process.note_failure("end", error)
                return
