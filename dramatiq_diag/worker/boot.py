"""Starts diagnostics with the first worker of a process, and stops them with the last."""

from __future__ import annotations

import os
import threading

from dramatiq import Broker, Worker

from ..policy.propagation import CLEANUP_ACTOR
from ..settings import Settings
from .cleanup_schedule import declare_cleanup
from .process import WorkerProcess


class Workers:
    """The workers of this process, which share one `WorkerProcess`; made when the first worker boots.

    Parameters:
      settings: The settings.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.pid = os.getpid()
        self.lock = threading.Lock()
        "For `join` and `leave`: two threads may start or stop two workers."
        self._process: WorkerProcess | None = None
        self._members: tuple[tuple[Broker, Worker], ...] = ()
        "Replaced as a whole, as the publisher's thread reads it."

    def join(self, broker: Broker, worker: Worker) -> WorkerProcess:
        """Adds a worker that boots, and starts the `WorkerProcess` if there is none.

        If it cannot be started, all that was started is stopped and the error is raised; the next worker that boots
        tries again.
        """
        if (broker, worker) not in self._members:
            self._members = (*self._members, (broker, worker))
        declare_cleanup(broker, self.settings)
        if self._process is None:
            self._process = self._started()
        self._process.selection.look_at(broker.actors.values())
        return self._process

    def leave(self, worker: Worker) -> bool:
        """Removes a worker that has stopped. Returns: True for the last one; False while others run."""
        self._members = tuple(member for member in self._members if member[1] is not worker)
        return not self._members

    def stop(self) -> None:
        """Stops the `WorkerProcess`, after the last worker."""
        process, self._process = self._process, None
        if process is not None:
            process.stop(self.settings.shutdown_timeout)

    def listener(self) -> Broker | None:
        """Returns: A broker whose worker in this process listens to the queue of the cleanup; None without one."""
        brokers = (broker for broker, worker in self._members if _has(broker, worker, CLEANUP_ACTOR))
        return next(brokers, None)

    def can_run(self, actor_name: str) -> bool:
        """Returns: Whether a worker has an actor of that name and listens to its queue."""
        return any(_has(broker, worker, actor_name) for broker, worker in self._members)

    def actors(self) -> dict[str, str]:
        """Returns: The actors whose queues the workers listen to, without the cleanup -> their queues."""
        return {
            actor.actor_name: actor.queue_name
            for broker, worker in self._members
            for actor in tuple(broker.actors.values())  # A copy: another thread may declare an actor.
            if actor.actor_name != CLEANUP_ACTOR and _has(broker, worker, actor.actor_name)
        }

    def _started(self) -> WorkerProcess:
        process = WorkerProcess(self.settings, self)
        for broker, _ in self._members:
            process.selection.look_at(broker.actors.values())
        process.start()
        return process


def _has(broker: Broker, worker: Worker, actor_name: str) -> bool:
    actor = broker.actors.get(actor_name)
    return actor is not None and (not worker.consumer_whitelist or actor.queue_name in worker.consumer_whitelist)
