"""The cleanup actor, a shim over `retention`, and its schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dramatiq import Actor, Broker, Worker
from dramatiq.logging import get_logger

from .asking import CLEANUP_ACTOR
from .errors import DiagnosticsError
from .retention import Cleanup
from .settings import Settings
from .store import Store

#: Milliseconds that a cleanup may take.
_TIME_LIMIT_MS = 3_600_000


def register_cleanup(broker: Broker, **actor_options: Any) -> Actor[[], None]:
    """Declares the cleanup actor `dramatiq_diag.cleanup_orphans`, for a scheduler of your own to enqueue.

    Parameters:
      broker: The broker; the settings are those of its `Diagnostics` middleware, or of the environment.
      actor_options: Options of the actor, such as `queue_name` or periodiq's `periodic`. By default the queue is
        `cleanup_queue`, the time limit an hour, and a cleanup that failed is not retried: the next one does its work.

    Returns:
      The actor; the one that is already declared, if there is one and no options are given.

    Raises:
      ValueError: When it is already declared and options are given.
    """
    if CLEANUP_ACTOR in broker.actors and not actor_options:
        return broker.actors[CLEANUP_ACTOR]
    settings = _settings_of(broker)
    queue_name = actor_options.pop("queue_name", settings.cleanup_queue)
    priority = actor_options.pop("priority", 100)
    known = {"time_limit": _TIME_LIMIT_MS, "max_retries": 0}
    options = {name: value for name, value in known.items() if name in broker.actor_options} | actor_options

    def cleanup_orphans() -> None:
        run_cleanup(settings)

    return Actor(
        cleanup_orphans,
        broker=broker,
        actor_name=CLEANUP_ACTOR,
        queue_name=queue_name,
        priority=priority,
        options=options,
    )


def run_cleanup(settings: Settings) -> None:
    """Does one cleanup."""
    store = Store(settings)
    try:
        Cleanup(store).run()
    finally:
        store.close()


def prepare_cleanup(broker: Broker, worker: Worker, settings: Settings) -> Callable[[Store], None] | None:
    """Declares the actor in a booting worker.

    Returns:
      What enqueues a cleanup when one is due, called every few seconds; None where this worker is not to schedule.
    """
    actor = register_cleanup(broker)
    whitelist = worker.consumer_whitelist
    if settings.cleanup_interval == 0:
        return None
    if whitelist and actor.queue_name not in whitelist:
        get_logger(__name__).warning(
            "This worker leaves out the queue %r, so it does not schedule the cleanup of diagnostics; let a worker "
            "listen to that queue, set DRAMATIQ_DIAG_CLEANUP_QUEUE, or run `dramatiq-diag cleanup`.",
            actor.queue_name,
        )
        return None
    return lambda store: _enqueue(actor, store)


def _enqueue(actor: Actor[[], None], store: Store) -> None:
    if not store.claim_cleanup():
        return
    try:
        actor.send()
    except Exception as error:
        store.release_cleanup()
        raise DiagnosticsError(f"The cleanup could not be enqueued: {type(error).__name__}: {error}.") from error


def _settings_of(broker: Broker) -> Settings:
    from .middleware import Diagnostics  # The middleware needs this module.

    for middleware in broker.middleware:
        if isinstance(middleware, Diagnostics):
            return middleware.settings
    return Settings()
