"""Fixtures of the tests of logs: a logger, what its handlers see, and `logging` as it was."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dramatiq_diag import Settings
from dramatiq_diag.statuses import RunStatus
from support.logs import Kept
from support.store import Stored

METHODS = ("callHandlers", "isEnabledFor", "_log")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Fails a test after which anything of ours is left in `logging`."""
    before = {name: vars(logging.Logger)[name] for name in METHODS}
    level = logging.root.level
    yield
    assert {name: vars(logging.Logger)[name] for name in METHODS} == before
    assert logging.root.level == level


@pytest.fixture
def logger(request: pytest.FixtureRequest) -> Iterator[logging.Logger]:
    """A logger of this test alone, which lets INFO through."""
    made = logging.getLogger(f"app.{request.node.name}")
    made.setLevel(logging.INFO)
    yield made
    made.handlers.clear()
    made.filters.clear()
    made.propagate, made.disabled = True, False
    made.setLevel(logging.NOTSET)


@pytest.fixture
def kept(logger: logging.Logger) -> Kept:
    """A handler of the logger that sees all that reaches it."""
    handler = Kept()
    logger.addHandler(handler)
    return handler


@pytest.fixture
def log_of(bench: Any, settings: Callable[..., Settings], stored: Callable[[Settings], Stored]) -> Callable[..., str]:
    """Executes a function as a task, and gives its log."""

    def make(name: str, fn: Callable[..., Any], **values: Any) -> str:
        given = settings(task_diagnostics=[name], **values)
        with bench(given) as tasks:
            task_id = tasks.run(fn, actor_name="work")
        assert stored(given).runs(task_id)[0].status == RunStatus.SUCCEEDED
        return stored(given).data(task_id, "task_logs").decode("utf-8")

    return make
