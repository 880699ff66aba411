"""Starts diagnostics with the first worker of a process, and stops them with the last."""

from __future__ import annotations

import os
import threading

from dramatiq import Broker, Worker

from ..settings import Settings
from .actors import HostedActors
from .cleanup_schedule import declare_cleanup
from .process import WorkerProcess
from .tuning import TUNING, Tuning


class Workers(HostedActors):
    """The workers of this process, which share one `WorkerProcess`; made when the first worker boots."""

    def __init__(self, settings: Settings, tuning: Tuning | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.pid = os.getpid()
        self.lock = threading.Lock()
        "For `join` and `leave`: two threads may start or stop two workers."
        self._tuning = tuning or TUNING
        self._process: WorkerProcess | None = None

    def join(self, broker: Broker, worker: Worker) -> WorkerProcess:
        """Adds a worker that boots, and starts the `WorkerProcess` if there is none.

        If it cannot be started, all that was started is stopped and the error is raised; the next worker that boots
        tries again.
        """
        self.add(broker, worker)
        declare_cleanup(broker, self.settings)
        process = self._process or WorkerProcess(self.settings, self, tuning=self._tuning)
        for each, _ in self.workers:
            process.selection.look_at(each.actors.values())
        if self._process is None:
            process.start()
            self._process = process
        return process

    def leave(self, worker: Worker) -> bool:
        """Removes a worker that has stopped. Returns: True for the last one; False while others run."""
        self.remove(worker)
        return not self.workers

    def stop(self) -> None:
        """Stops the `WorkerProcess`, after the last worker."""
        process, self._process = self._process, None
        if process is not None:
            process.stop(self.settings.shutdown_timeout)
