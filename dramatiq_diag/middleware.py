"""Dramatiq's hooks, nothing else."""

from __future__ import annotations

import logging
import sys
from functools import partial
from typing import Any

from dramatiq import Broker, Message, Middleware, Worker
from dramatiq.broker import MessageProxy
from dramatiq.logging import get_logger
from dramatiq.middleware import Interrupt

from .asking import OPTION, prepare, set_sender
from .capturing import can_run, runnable
from .cleanup import prepare_cleanup
from .models import RunStatus
from .process import Process
from .rules import KEEP_IF_OPTION
from .selection import SAMPLE_RATE_OPTION
from .settings import Settings
from .triggers import TRIGGERS_OPTION


class Diagnostics(Middleware):
    """Collects diagnostics of the tasks that a worker executes. Add it last, so that it measures the task alone.

    Parameters:
      settings: The settings; without them they are read from the environment.

    Raises:
      SettingsError: When a setting is wrong.

    Note:
      A process that only constructs it and sends messages starts nothing and touches no file.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.logger = get_logger(__name__, type(self))
        self.settings = Settings.load(settings)
        self.process: Process | None = None
        "What this worker process has; None outside a worker, and while nothing can be selected."

    @property
    def actor_options(self) -> set[str]:
        return {OPTION, SAMPLE_RATE_OPTION, KEEP_IF_OPTION, TRIGGERS_OPTION}

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        if self.settings.off or self.process is not None:
            return
        if sys.platform == "win32":
            self.logger.error("Nothing is collected: the spool needs POSIX locks, which Windows does not have.")
            return
        self.process = Process(self.settings)
        self.process.selection.look_at(broker.actors.values())
        self.process.publisher.schedule = prepare_cleanup(broker, worker, self.settings)
        self.process.capturing.can_run = partial(can_run, broker, worker)
        self.process.capturing.actors = partial(runnable, broker, worker)
        self.process.start()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        if self.process is not None:
            process, self.process = self.process, None
            process.stop(self.settings.shutdown_timeout)

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        prepare(message)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        if self.process is None:
            return
        run = self.process.begin(broker, message)
        if run is None:
            return
        for enter in run.start():
            try:
                enter()  # Right here; see `Recording.enter`.
            except Exception as error:  # noqa: BLE001 - the recording decides.
                run.enter_error = error

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any | None = None,
        exception: BaseException | None = None,
    ) -> None:
        if self.process is not None:
            self._end(self.process, RunStatus.SUCCEEDED if exception is None else RunStatus.FAILED, exception)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        if self.process is not None:
            self._end(self.process, RunStatus.SKIPPED)

    def after_ack(self, broker: Broker, message: MessageProxy) -> None:
        set_sender(None)

    after_nack = after_ack

    def flush(self, timeout_s: float) -> bool:
        """Waits until everything sealed so far is published.

        Parameters:
          timeout_s: Seconds to wait at most.

        Returns:
          Whether it is.
        """
        return self.process is None or self.process.flush(timeout_s)

    def _end(self, process: Process, status: RunStatus, exception: BaseException | None = None) -> None:
        while True:
            try:
                process.end(status, exception)
                return
            except Interrupt as interrupt:
                # A time limit that strikes in here was meant for a function that has already ended: without this
                # middleware it would have been disarmed by now, so the task's outcome stays what it is.
                process.log.say(logging.DEBUG, "%r struck after the task had ended.", interrupt)
