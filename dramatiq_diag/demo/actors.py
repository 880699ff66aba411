"""Declares the functions of the demo as actors, on any broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dramatiq
from dramatiq import Actor, Broker
from dramatiq.middleware import AsyncIO, CurrentMessage

from . import work

#: The functions in the order of the demo, and the options of their actors.
_WORK: tuple[tuple[Callable[..., Any], dict[str, Any]], ...] = (
    (work.index_sources, {}),
    (work.search_index, {}),
    (work.fill_cache, {}),
    (work.fetch_sources, {}),
    (work.find_definition, {"max_retries": 0}),
    (work.deliver_report, {"max_retries": 1, "min_backoff": 100, "max_backoff": 200}),
)


def declare(broker: Broker, queue_name: str = "default") -> list[Actor[..., Any]]:
    """Declares the demo's actors. Importing this module declares nothing: tests and workers bring their own broker.

    Parameters:
      broker: The broker. `AsyncIO` and `CurrentMessage`, which the actors need, are added where they are missing. Add
        `Diagnostics` after this call, as it has to be the last.
      queue_name: The queue that the actors listen to.

    Returns:
      The actors, each of which can be sent without arguments.
    """
    for needed in (AsyncIO, CurrentMessage):
        if not any(isinstance(middleware, needed) for middleware in broker.middleware):
            broker.add_middleware(needed())
    return [
        dramatiq.actor(broker=broker, queue_name=queue_name, actor_name=function.__name__, **options)(function)
        for function, options in _WORK
    ]
