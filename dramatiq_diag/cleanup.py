"""Declares the cleanup actor for a scheduler of the application."""

from __future__ import annotations

from typing import Any

from dramatiq import Actor, Broker

from .middleware import Diagnostics
from .settings import Settings
from .worker.cleanup_schedule import declare_cleanup

__all__ = ["register_cleanup"]


def register_cleanup(broker: Broker, **actor_options: Any) -> Actor[[], None]:
    """Declares the cleanup actor `dramatiq_diag.cleanup_orphans`, which a scheduler of yours enqueues.

    Parameters:
      broker: The broker; the settings are those of its `Diagnostics` middleware, or of the environment.
      actor_options: Options of the actor, such as `queue_name` or periodiq's `periodic`. By default the queue is
        `cleanup_queue` and the time limit is an hour. A failed cleanup is not retried: the next one does its work.

    Returns:
      The actor. If it is already declared and no options are given, the declared one.

    Raises:
      ValueError: When it is already declared and options are given.
    """
    own = (middleware.settings for middleware in broker.middleware if isinstance(middleware, Diagnostics))
    return declare_cleanup(broker, next(own, None) or Settings(), **actor_options)
