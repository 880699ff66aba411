"""Tasks that workers execute, on brokers of the tests."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dramatiq
import pytest
from dramatiq import Broker, Message, Worker
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import AsyncIO, Middleware, Retries

from dramatiq_diag import Diagnostics, Settings
from dramatiq_diag.runtime.rss import RssReader
from dramatiq_diag.worker.tuning import Tuning
from support import PATIENCE_S


def middleware_under_test(*more: Middleware) -> list[Middleware]:
    """Dramatiq's own, without the default back-off of 15 seconds, and what a test adds."""
    defaults = [m() for m in dramatiq.middleware.default_middleware if m is not Retries]
    return [*defaults, Retries(min_backoff=1, max_backoff=1), AsyncIO(), *more]


def rss_of_runs(monkeypatch: pytest.MonkeyPatch, read: Callable[[], int]) -> None:
    """Has runs measure the RSS by *read*. The contact's reports, which come at any moment, do not call it."""

    def rss_bytes(_: RssReader) -> int:
        return 1 if threading.current_thread().name == "dramatiq_diag.contact" else read()

    monkeypatch.setattr(RssReader, "rss_bytes", rss_bytes)


@contextmanager
def running(broker: Broker, *, threads: int = 1, **options: Any) -> Iterator[Worker]:
    worker = Worker(broker, worker_timeout=10, worker_threads=threads, **options)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def finish(broker: Broker, worker: Worker, *queue_names: str) -> None:
    """Waits until the worker has done all messages of the queues, retries included."""
    for queue_name in queue_names:
        broker.join(queue_name, timeout=int(PATIENCE_S * 1000))
    worker.join()


class Gate:
    """A function for a task, which waits in it until the test opens the gate."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def wait(self) -> None:
        self.reached.set()
        assert self.opened.wait(PATIENCE_S)


class Bench:
    """A stub broker with `Diagnostics` and one worker: the shortest way from a function to its artifacts."""

    def __init__(self, broker: StubBroker, diagnostics: Diagnostics, worker: Worker) -> None:
        self.broker = broker
        self.diagnostics = diagnostics
        self.worker = worker

    def actor(self, fn: Callable[..., Any], **options: Any) -> Any:
        return dramatiq.actor(fn, broker=self.broker, **{"max_retries": 0, "queue_name": "tasks"} | options)

    def finish(self) -> None:
        finish(self.broker, self.worker, *(set(self.broker.queues) - self.broker.delay_queues))
        assert self.diagnostics.flush(PATIENCE_S)

    def run(self, fn: Callable[..., Any], *args: Any, **options: Any) -> str:
        """Executes a function as a task and publishes its run. Returns: The task's id."""
        message: Message[Any] = self.actor(fn, **options).send(*args)
        self.finish()
        return message.message_id

    def run_logged(self, fn: Callable[..., Any], handler: logging.Handler) -> str:
        """As `run`, while a handler gets the lines that Dramatiq logs around the function of the actor."""
        actor = self.actor(fn)
        level = actor.logger.level
        actor.logger.setLevel(logging.DEBUG)
        actor.logger.addHandler(handler)
        try:
            message: Message[Any] = actor.send()
            self.finish()
        finally:
            actor.logger.removeHandler(handler)
            actor.logger.setLevel(level)
        return message.message_id


@contextmanager
def running_bench(
    settings: Settings, *more: Middleware, threads: int = 1, tuning: Tuning | None = None
) -> Iterator[Bench]:
    """Starts the worker of a `Bench`, and stops it."""
    diagnostics = Diagnostics(settings, tuning=tuning)
    broker = StubBroker(middleware=middleware_under_test(*more, diagnostics), fail_fast_default=False)
    with running(broker, threads=threads) as worker:
        yield Bench(broker, diagnostics, worker)
    broker.close()
