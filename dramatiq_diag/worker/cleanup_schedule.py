"""Declares the cleanup actor of a worker, and enqueues it by a schedule."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any

from dramatiq import Actor, Broker

from ..errors import DiagnosticsError
from ..policy.propagation import CLEANUP_ACTOR
from ..runtime.loggers import get_logger
from ..settings import Settings

if TYPE_CHECKING:
    from ..store.store import Store

#: The time limit of a cleanup, in milliseconds.
_TIME_LIMIT_MS = 3_600_000

#: Seconds that a stopping worker waits for the end of a cleanup's batch.
_PATIENCE_S = 5.0


def declare_cleanup(broker: Broker, settings: Settings, **actor_options: Any) -> Actor[[], None]:
    """Declares the cleanup actor, or finds it declared; see `cleanup.register_cleanup`."""
    if CLEANUP_ACTOR in broker.actors and not actor_options:
        return broker.actors[CLEANUP_ACTOR]
    queue_name = actor_options.pop("queue_name", settings.cleanup_queue)
    priority = actor_options.pop("priority", 100)
    known = {"time_limit": _TIME_LIMIT_MS, "max_retries": 0, "throws": DiagnosticsError}
    options = {name: value for name, value in known.items() if name in broker.actor_options} | actor_options

    def cleanup_orphans() -> None:
        try:
            run_cleanup(settings)
        except DiagnosticsError as error:  # Dramatiq logs the errors of `throws` without their text.
            get_logger(__name__).error("The cleanup failed, and the next one does its work: %s", error)
            raise

    return Actor(
        cleanup_orphans,
        broker=broker,
        actor_name=CLEANUP_ACTOR,
        queue_name=queue_name,
        priority=priority,
        options=options,
    )


def run_cleanup(settings: Settings, on_batch: Callable[[Any], None] | None = None) -> None:
    """Does one cleanup. An error of *on_batch* ends it after a batch, and keeps the work done so far."""
    from ..maintenance.cleanup import Cleanup  # Not needed, nor SQLAlchemy, in a process that only enqueues cleanups.
    from ..maintenance.leak_captures import capture_leaks, refusals
    from ..store.store import Store

    with closing(Store(settings)) as store:
        Cleanup(store, on_batch=on_batch).run()
        if settings.leak_captures:
            for text in refusals(capture_leaks(store)):
                get_logger(__name__).warning("%s", text)


class Schedule:
    """Enqueues a cleanup when one is due, or executes it if no worker of this process listens to its queue.

    Parameters:
      listener: Returns the broker whose worker in this process listens to that queue; None without one.
    """

    def __init__(self, settings: Settings, listener: Callable[[], Broker | None]) -> None:
        self.logger = get_logger(__name__, type(self))
        self._settings = settings
        self._listener = listener
        self._stopping = False
        self._thread: threading.Thread | None = None
        "Executes a cleanup. A thread of its own, as publishing must not wait for it."

    def __call__(self, store: Store) -> None:
        """Claims the turn if a cleanup is due. Runs on the contact's thread, every few seconds."""
        if self._stopping or (self._thread is not None and self._thread.is_alive()) or not store.claim_cleanup():
            return
        try:
            broker = self._listener()
            if broker is not None:
                broker.actors[CLEANUP_ACTOR].send()
            else:
                thread = threading.Thread(target=self._execute, name="dramatiq_diag.cleanup", daemon=True)
                thread.start()
                self._thread = thread
        except Exception as error:
            store.release_cleanup()
            raise DiagnosticsError(f"The cleanup could not be enqueued: {type(error).__name__}: {error}.") from error

    def stop(self) -> None:
        """Ends a cleanup that is executed here after its batch; see `join`."""
        self._stopping = True

    def join(self) -> None:
        """Waits a few seconds for the end of that batch, and no longer: the database may not answer."""
        if self._thread is not None:
            self._thread.join(_PATIENCE_S)

    def _execute(self) -> None:
        try:
            run_cleanup(self._settings, self._go_on)
        except _StoppedError:
            self.logger.debug("The worker stops, and the cleanup with it; the next one goes on.")
        except Exception as error:
            known = isinstance(error, DiagnosticsError)
            text = "The cleanup failed, and the next one does its work: %s"
            self.logger.error(text, error, exc_info=None if known else error)

    def _go_on(self, _: Any) -> None:
        if self._stopping:
            raise _StoppedError


class _StoppedError(Exception):
    """Ends a cleanup after a batch."""
