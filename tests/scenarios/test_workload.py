"""A workload looks the same with and without the middleware."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dramatiq
import pytest
from dramatiq import Worker
from dramatiq.brokers.stub import StubBroker
from dramatiq.errors import Retry
from dramatiq.middleware import (
    CurrentMessage,
    SkipMessage,
)
from dramatiq.results import Results
from dramatiq.results.backends import StubBackend

from dramatiq_diag import Diagnostics
from support.tasks import finish, middleware_under_test

#: Before Dramatiq 2.2 its queue has no order among the messages of one priority.
IS_IN_ORDER = hasattr(dramatiq.worker, "_WorkQueueItem")

ALL_THREE = ["memory", "pyinstrument", "memray"]


class Ledger(logging.Handler):
    """What can be told from outside about a workload: records, results, exceptions, retries, order."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: Counter[tuple[str, str, str]] = Counter()
        self.lines: list[Any] = []
        self.retries: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith(("dramatiq_diag", "alembic")):
            self.records[record.name, record.levelname, str(record.msg)] += 1


def workload(ledger: Ledger, broker: StubBroker, threads: int) -> dict[str, Any]:
    """Runs a mix of actors. Returns: What a user of Dramatiq can see of it."""
    lines = ledger.lines
    attempts: Counter[str] = Counter()

    def actor(fn: Callable[..., Any], **options: Any) -> Any:
        return dramatiq.actor(fn, broker=broker, queue_name="tasks", store_results=True, **{"max_retries": 0} | options)

    def add(left: int, right: int) -> int:
        name = re.sub(r"\d+", "N", threading.current_thread().name)
        lines.append(("add", left, name, logging.getLogger("dramatiq").getEffectiveLevel(), logging.root.level))
        return left + right

    async def add_slowly(left: int, right: int) -> int:
        await asyncio.sleep(0.001)
        lines.append(("add_slowly", left, re.sub(r"\d+", "N", threading.current_thread().name)))
        return left + right

    def fail(number: int) -> None:
        lines.append(("fail", number))
        raise KeyError(number)

    def expected(number: int) -> None:
        raise ZeroDivisionError(number)

    def retried(number: int) -> int:
        message_id = CurrentMessage.get_current_message().message_id
        attempts[message_id] += 1
        # The delay of a retry is random, so the order of later attempts among messages is as well.
        (lines if attempts[message_id] == 1 else ledger.retries).append(("retried", number, attempts[message_id]))
        if attempts[message_id] == 1:
            raise Retry("once more", delay=1)
        if attempts[message_id] == 2:
            raise ValueError(number)
        return number

    def skipped(number: int) -> None:
        raise SkipMessage(f"{number}")

    calls = [
        actor(add),
        actor(add_slowly),
        actor(expected, throws=ZeroDivisionError),
        actor(fail),
        actor(retried, max_retries=4),
        actor(skipped),
    ]
    messages = [
        called.send(number, 1) if called.fn.__name__.startswith("add") else called.send(number)
        for number in range(8)
        for called in calls
    ]
    with _worker(broker, threads) as worker:
        finish(broker, worker, "tasks")
    outcomes = []
    for message in messages:
        try:
            outcome: Any = message.get_result(backend=StubBackendOf.get(broker))
        except dramatiq.errors.DramatiqError as error:
            outcome = repr(error)
        outcomes.append((message.actor_name, message.args, outcome))
    return {
        "outcomes": outcomes,
        "dead": Counter((message.actor_name, message.options.get("retries")) for message in broker.dead_letters),
        "records": ledger.records,
        "lines": lines if threads == 1 and IS_IN_ORDER else Counter(lines),
        "retries": Counter(ledger.retries),
        "thread names": {re.sub(r"\d+", "N", thread.name) for thread in threading.enumerate()},
    }


class StubBackendOf:
    """The result backend of a broker."""

    @staticmethod
    def get(broker: StubBroker) -> StubBackend:
        return next(m.backend for m in broker.middleware if isinstance(m, Results))


@contextmanager
def _worker(broker: StubBroker, threads: int) -> Iterator[Worker]:
    worker = Worker(broker, worker_timeout=50, worker_threads=threads)
    worker.start()
    yield worker
    worker.stop()


@pytest.mark.parametrize("threads", [1, 8])
def test_a_workload_looks_the_same_with_and_without_the_middleware(settings, threads, caplog):
    seen: list[dict[str, Any]] = []
    for diagnostics in (None, Diagnostics(settings(task_diagnostics=ALL_THREE, pyinstrument_interval=0.001))):
        # Given a broker without, then with all three diagnostics
        more = [CurrentMessage(), Results(backend=StubBackend())]
        broker = StubBroker(
            middleware=middleware_under_test(*more, *([] if diagnostics is None else [diagnostics])),
            fail_fast_default=False,
        )
        ledger = Ledger()
        logging.root.addHandler(ledger)
        try:
            # When the same workload runs
            with caplog.at_level(logging.INFO):
                seen.append(workload(ledger, broker, threads))
        finally:
            logging.root.removeHandler(ledger)
            broker.close()

    # Then results, exceptions, retries, order, log records, log levels and thread names are the same
    without, with_diagnostics = seen
    assert len(without["lines"]) > 20
    assert with_diagnostics["records"] - without["records"] == Counter()
    assert without == with_diagnostics
    assert [r for r in caplog.records if r.name.startswith("dramatiq_diag") and r.levelno >= logging.WARNING] == []
