"""Tracebacks of ours: none parses source, as a task on another thread may do that meanwhile (python/cpython#106905)."""

from __future__ import annotations

import ast
import json
import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest

from dramatiq_diag.runtime.loggers import get_logger
from dramatiq_diag.runtime.ticker import Ticker
from dramatiq_diag.runtime.tracebacks import take_traceback, traceback_text


def fails() -> None:
    try:
        json.loads("{}")["key"] + json.loads("1")
    except KeyError as error:
        group = ExceptionGroup("parts", [ValueError(1), failing(lambda: [][0] + 1)])
        raise RuntimeError(json.loads('"second"') + undefined()) from group if error else None  # type: ignore[name-defined]  # noqa: F821


def failing(function: Callable[[], Any]) -> Exception:
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is parsed into a syntax tree."""
    sources: list[str] = []
    original = ast.parse

    def parse(source: Any, *arguments: Any, **options: Any) -> Any:
        sources.append(source)
        return original(source, *arguments, **options)

    monkeypatch.setattr(ast, "parse", parse)
    return sources


def test_the_traceback_of_a_run_is_made_without_parsing(parsed):
    text = traceback_text(take_traceback(failing(fails)))

    assert parsed == []
    assert "^" not in text
    assert "ValueError: 1" in text or "KeyError: 'key'" in text
    assert 'json.loads("{}")["key"]' in text


def test_what_a_thread_of_ours_logs_is_made_without_parsing(parsed, caplog):
    logger = get_logger("dramatiq_diag.test", Ticker)
    assert get_logger("dramatiq_diag.test", Ticker).logger.filters == logger.logger.filters

    with caplog.at_level(logging.WARNING):
        logger.warning("It failed.", exc_info=failing(fails))
    text = logging.Formatter().format(caplog.records[0])

    assert parsed == []
    assert text.startswith("It failed.\nTraceback (most recent call last):\n")
    assert "^" not in text
    assert caplog.records[0].exc_info is not None


def test_a_message_that_cannot_be_made_costs_its_own_text_alone(caplog):
    class BrokenError(Exception):
        def __str__(self) -> str:
            sys.exit("no message")

    get_logger("dramatiq_diag.test", Ticker).warning("It failed.", exc_info=BrokenError())

    assert "BrokenError" in logging.Formatter().format(caplog.records[0])
