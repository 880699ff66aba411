"""Declares the demo's actors on a real broker: a module for Dramatiq's command line.

    export DRAMATIQ_DIAG_DEMO_BROKER=redis://127.0.0.1:6379/0      # or amqp://guest:guest@127.0.0.1:5672
    export TASK_DIAGNOSTICS=all
    python -m dramatiq dramatiq_diag.demo.worker --processes 2 --threads 4
    python -m dramatiq_diag.demo.worker                            # sends one task of each

Importing it makes the broker, as Dramatiq's command line expects; nothing else in this package imports it.
"""

from __future__ import annotations

import dramatiq
from dramatiq import Broker

from .. import Diagnostics
from ..errors import NotInstalledError, SettingsError
from ..settings import demo_broker_url
from .actors import declare


def make_broker(url: str) -> Broker:
    """Makes the broker of a URL. Does not connect.

    Raises:
      SettingsError: When the URL is neither of Redis nor of RabbitMQ.
      NotInstalledError: When the broker's client is missing.
    """
    scheme, separator, _ = url.partition("://")
    try:
        if separator and scheme in ("redis", "rediss", "unix"):
            from dramatiq.brokers.redis import RedisBroker

            return RedisBroker(url=url)
        if separator and scheme in ("amqp", "amqps"):
            from dramatiq.brokers.rabbitmq import RabbitmqBroker

            return RabbitmqBroker(url=url)
    except ImportError as error:
        raise NotInstalledError(
            f"The broker's client is not installed ({error}): pip install 'dramatiq[redis,rabbitmq]'"
        ) from error
    raise SettingsError(
        "DRAMATIQ_DIAG_DEMO_BROKER: the given value is not allowed; allowed: a URL with redis://, unix:// or amqp://."
    )


broker = make_broker(demo_broker_url())
actors = declare(broker)
broker.add_middleware(Diagnostics())
dramatiq.set_broker(broker)

if __name__ == "__main__":
    for actor in actors:
        print(f"/tasks/{actor.send().message_id}/  {actor.actor_name}")  # noqa: T201 - a command's output.
