"""Declares the cleanup actor, for a scheduler of one's own to enqueue."""

from __future__ import annotations

from typing import Any

from dramatiq import Actor, Broker

from .middleware import Diagnostics
from .settings import Settings
from .worker.cleanup_schedule import declare_cleanup

__all__ = ["register_cleanup"]


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
    own = (middleware.settings for middleware in broker.middleware if isinstance(middleware, Diagnostics))
    return declare_cleanup(broker, next(own, None) or Settings(), **actor_options)
