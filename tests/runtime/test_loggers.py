"""Loggers of this package raise nothing into the threads that log."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from dramatiq_diag.errors import StoreUnavailableError
from dramatiq_diag.runtime.loggers import Log, get_logger
from dramatiq_diag.statuses import RunStatus
from dramatiq_diag.store.store import Store
from support import PATIENCE_S, eventually
from support.tasks import finish


class Broken(logging.Handler):
    """The handler of an application whose log server is away."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def handle(self, record: logging.LogRecord) -> bool:
        self.count += 1
        raise ConnectionError("the log server is away")


@pytest.fixture
def broken() -> Iterator[Broken]:
    handler = Broken()
    logging.getLogger("dramatiq_diag").addHandler(handler)
    try:
        yield handler
    finally:
        logging.getLogger("dramatiq_diag").removeHandler(handler)


def test_a_handler_that_raises_costs_the_message_alone(broken, capsys, monkeypatch):
    monkeypatch.setattr(Log, "is_told", False)
    logger = get_logger("dramatiq_diag.test_loggers")
    logger.warning("one")
    logger.error("two")

    assert broken.count == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert "test_loggers could not be logged: ConnectionError: the log server is away" in told


def test_a_record_names_the_place_that_logs(caplog):
    get_logger("dramatiq_diag.test_loggers").warning("here")
    (record,) = caplog.records
    assert (record.filename, record.funcName) == ("test_loggers.py", "test_a_record_names_the_place_that_logs")


def test_diagnostics_go_on_while_neither_the_log_nor_the_store_answers(bench, settings, stored, monkeypatch, broken):
    given = settings(task_diagnostics=["memory"])
    away = [True]
    publish = Store.publish

    def refuse(store: Store, runs: object) -> None:
        if away:
            raise StoreUnavailableError
        publish(store, runs)

    monkeypatch.setattr(Store, "publish", refuse)
    with bench(given) as tasks:
        process = tasks.diagnostics.process
        actor = tasks.actor(lambda: None, actor_name="work")
        ids = [actor.send_with_options(diagnostics="wrong").message_id, *(actor.send().message_id for _ in range(3))]
        process.services.ticker.call_soon(lambda: 1 / 0)
        finish(tasks.broker, tasks.worker, "tasks")
        eventually(lambda: broken.count >= 3, "the saver, the ticker and the publisher have logged")

        away.clear()
        process.publisher.thread.hold(0.0)
        assert tasks.diagnostics.flush(PATIENCE_S)
    assert {run.task_id for run in stored(given).all_runs()} == set(ids)
    assert {run.status for run in stored(given).all_runs()} == {RunStatus.SUCCEEDED}
