"""Knows the workers of this process, and the actors that they execute."""

from __future__ import annotations

from typing import Any

from dramatiq import Actor, Broker, Worker

from ..policy.propagation import CLEANUP_ACTOR


class HostedActors:
    """The actors that the workers of this process execute. Any thread may ask for them."""

    def __init__(self) -> None:
        self.workers: tuple[tuple[Broker, Worker], ...] = ()
        "Replaced as a whole, as other threads read it."

    def add(self, broker: Broker, worker: Worker) -> None:
        """Adds a worker that boots."""
        if (broker, worker) not in self.workers:
            self.workers = (*self.workers, (broker, worker))

    def remove(self, worker: Worker) -> None:
        """Removes a worker that has stopped."""
        self.workers = tuple(member for member in self.workers if member[1] is not worker)

    @property
    def thread_count(self) -> int:
        """How many tasks the workers may execute at once."""
        return sum(worker.worker_threads for _, worker in self.workers)

    def listener(self) -> Broker | None:
        """Returns: A broker whose worker in this process listens to the queue of the cleanup; None without one."""
        return next((broker for broker, worker in self.workers if _has(broker, worker, CLEANUP_ACTOR)), None)

    def can_run(self, actor_name: str) -> bool:
        """Returns: Whether a worker has an actor of that name and listens to its queue."""
        return any(_has(broker, worker, actor_name) for broker, worker in self.workers)

    def find(self, actor_name: str) -> Actor[..., Any] | None:
        """Returns: An actor that a worker executes; None where there is none of that name."""
        found = (broker.actors.get(actor_name) for broker, worker in self.workers if _has(broker, worker, actor_name))
        return next(found, None)

    def queues(self) -> dict[str, str]:
        """Returns: The actors whose queues the workers listen to, without the cleanup -> their queues."""
        return {
            actor.actor_name: actor.queue_name
            for broker, worker in self.workers
            for actor in tuple(broker.actors.values())  # A copy: another thread may declare an actor.
            if actor.actor_name != CLEANUP_ACTOR and _has(broker, worker, actor.actor_name)
        }


def _has(broker: Broker, worker: Worker, actor_name: str) -> bool:
    actor = broker.actors.get(actor_name)
    return actor is not None and (not worker.consumer_whitelist or actor.queue_name in worker.consumer_whitelist)
