"""What worker processes of the tests run: `python -m dramatiq support.workload`; the environment has the rest."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq import Broker
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker

from dramatiq_diag import Diagnostics
from support.tasks import middleware_under_test

QUEUE_NAME = os.environ["DIAG_TEST_QUEUE"]


def make_broker(*more: Any) -> Broker:
    url = os.environ["DIAG_TEST_BROKER"]
    middleware = middleware_under_test(*more)
    if url.startswith("amqp"):
        return RabbitmqBroker(url=url, middleware=middleware)
    return RedisBroker(url=url, namespace=QUEUE_NAME, middleware=middleware)


broker = make_broker(Diagnostics())
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=QUEUE_NAME, max_retries=0)
def parse(number: int) -> None:
    rows = [json.loads(json.dumps({"number": row, "name": "x" * row})) for row in range(300)]
    assert len(rows) == 300, number


@dramatiq.actor(queue_name=QUEUE_NAME, max_retries=0)
def hold(number: int) -> None:
    pages = [b"x" * 100_000 for _ in range(50)]
    assert len(pages) == 50, number


@dramatiq.actor(queue_name=QUEUE_NAME, max_retries=0)
async def fetch(number: int) -> None:
    await asyncio.sleep(0.001 * (number % 10))


@dramatiq.actor(queue_name=QUEUE_NAME, max_retries=0)
def fail(number: int) -> None:
    raise ValueError(number)


@dramatiq.actor(queue_name=QUEUE_NAME, max_retries=3)
def retry(number: int) -> None:
    marker = Path(os.environ["DRAMATIQ_DIAG_DATA_DIR"]) / f"retried-{number}"
    if not marker.exists():
        marker.touch()
        raise OSError(number)


def send(count: int) -> list[tuple[str, str]]:
    """Sends messages of all actors in turn. Returns: The actor and the task id of each."""
    actors = (parse, hold, fetch, fail, retry)
    messages = [actors[number % len(actors)].send(number) for number in range(count)]
    return [(message.actor_name, message.message_id) for message in messages]


if __name__ == "__main__":
    json.dump(send(int(sys.argv[1])), sys.stdout)
