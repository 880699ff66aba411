"""What the tortured workers run: `python -m dramatiq torture.app`, with everything else in the environment."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import dramatiq
from dramatiq.middleware import CurrentMessage

from dramatiq_diag import Diagnostics

from .servers import make_broker

QUEUE_NAME = os.environ["TORTURE_QUEUE"]

broker = make_broker(os.environ["TORTURE_BROKER"], QUEUE_NAME, Diagnostics())
dramatiq.set_broker(broker)


@contextmanager
def noted() -> Iterator[None]:
    """Notes that a function begins and ends, in a file that outlives the process."""
    message = CurrentMessage.get_current_message()
    assert message is not None
    descriptor = os.open(os.environ["TORTURE_NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, f"started {message.message_id}\n".encode())
        yield
    finally:
        os.write(descriptor, f"ended {message.message_id}\n".encode())
        os.close(descriptor)


@dramatiq.actor(queue_name=QUEUE_NAME)
def parse(number: int) -> None:
    with noted():
        for _ in range(20):
            json.loads(json.dumps([{"number": row, "name": "x" * row} for row in range(200)]))


@dramatiq.actor(queue_name=QUEUE_NAME)
def hold(number: int) -> None:
    with noted():
        pages = [b"x" * 100_000 for _ in range(200)]
        time.sleep(0.2)
        assert len(pages) == 200, number


@dramatiq.actor(queue_name=QUEUE_NAME)
async def fetch(number: int) -> None:
    with noted():
        await asyncio.sleep(0.05 * (number % 10))


@dramatiq.actor(queue_name=QUEUE_NAME, max_retries=1)
def fail(number: int) -> None:
    with noted():
        raise ValueError(number)


@dramatiq.actor(queue_name=QUEUE_NAME, max_retries=0, time_limit=1000)
def overrun(number: int) -> None:
    with noted():
        ends = time.monotonic() + 3
        while time.monotonic() < ends:
            sum(range(10_000))


@dramatiq.actor(queue_name=QUEUE_NAME, notify_shutdown=True)
def linger(number: int) -> None:
    with noted():
        for _ in range(10 + number % 20):
            sum(range(100_000))
            time.sleep(0.1)
