"""Diagnostics of a worker process: they begin with its first worker and end with its last."""

from __future__ import annotations

import os
import threading

from dramatiq import Broker, Worker

from ..policy.propagation import CLEANUP_ACTOR
from ..settings import Settings
from .cleanup_schedule import Schedule, declare_cleanup
from .process import WorkerProcess


class Workers:
    """The workers of this process, which share one `WorkerProcess`; made when the first of them boots.

    Parameters:
      settings: The settings.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.pid = os.getpid()
        self.lock = threading.Lock()
        "For `join` and `leave`; two workers may be started or stopped by two threads."
        self._process: WorkerProcess | None = None
        self._schedule: Schedule | None = None
        self._members: tuple[tuple[Broker, Worker], ...] = ()
        "Replaced as a whole: the publisher and the captures look at it from their threads."

    def join(self, broker: Broker, worker: Worker) -> WorkerProcess:
        """Takes in a worker that boots.

        Returns:
          What the workers share. Where it cannot be started everything that was begun is ended, and the error is
          raised; the next worker that boots tries again.
        """
        if (broker, worker) not in self._members:
            self._members = (*self._members, (broker, worker))
        declare_cleanup(broker, self.settings)
        if self._process is None:
            self._process = self._started()
        self._process.selection.look_at(broker.actors.values())
        return self._process

    def leave(self, worker: Worker) -> bool:
        """Lets go of a worker that has stopped. Returns: Whether it was the last one."""
        self._members = tuple(member for member in self._members if member[1] is not worker)
        return not self._members

    def stop(self) -> None:
        """Ends what the workers shared, when the last of them has stopped."""
        process, self._process = self._process, None
        if self._schedule is not None:
            self._schedule.stop()
        if process is not None:
            process.stop(self.settings.shutdown_timeout)
        if self._schedule is not None:
            self._schedule.join()

    def listener(self) -> Broker | None:
        """Returns: A broker on which a worker of this process listens to the queue of the cleanup; None for none."""
        brokers = (broker for broker, worker in self._members if _has(broker, worker, CLEANUP_ACTOR))
        return next(brokers, None)

    def can_run(self, actor_name: str) -> bool:
        """Returns: Whether one of the workers has an actor of that name, and listens to its queue."""
        return any(_has(broker, worker, actor_name) for broker, worker in self._members)

    def actors(self) -> dict[str, str]:
        """Returns: The actors that the workers listen for, each with its queue; the cleanup is none of them."""
        return {
            actor.actor_name: actor.queue_name
            for broker, worker in self._members
            for actor in tuple(broker.actors.values())  # Another thread may declare one meanwhile.
            if actor.actor_name != CLEANUP_ACTOR and _has(broker, worker, actor.actor_name)
        }

    def _started(self) -> WorkerProcess:
        self._schedule = Schedule(self.settings, self.listener) if self.settings.cleanup_interval else None
        process = WorkerProcess(self.settings, self, self._schedule)
        for broker, _ in self._members:
            process.selection.look_at(broker.actors.values())
        process.start()
        return process


def _has(broker: Broker, worker: Worker, actor_name: str) -> bool:
    actor = broker.actors.get(actor_name)
    return actor is not None and (not worker.consumer_whitelist or actor.queue_name in worker.consumer_whitelist)
