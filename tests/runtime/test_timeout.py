"""Calls that may hang: what becomes of one that began too late, or returned too late."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from dramatiq_diag.errors import StepTimeoutError
from dramatiq_diag.runtime.timeout import call_with_timeout
from support import PATIENCE_S


def at_once(start: Callable[[], object]) -> None:
    start()


def test_a_call_that_returns_in_time_is_not_undone():
    made: list[str] = []
    call_with_timeout(lambda: made.append("call"), PATIENCE_S, at_once, undo=lambda: made.append("undo"))
    assert made == ["call"]


def test_its_error_is_raised():
    with pytest.raises(ZeroDivisionError):
        call_with_timeout(lambda: 1 / 0, PATIENCE_S, at_once, undo=lambda: None)


def test_a_call_that_was_not_begun_in_time_is_not_made_any_more():
    made: list[str] = []
    handed_over: list[Callable[[], object]] = []
    with pytest.raises(StepTimeoutError, match="not begun within") as caught:
        call_with_timeout(lambda: made.append("call"), 0.01, handed_over.append, undo=lambda: made.append("undo"))
    assert not caught.value.has_begun

    # When the thread that begins calls has time again
    (start,) = handed_over
    before = set(threading.enumerate())
    start()
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE_S)
    assert made == []


def test_a_call_without_undo_is_made_however_late():
    made = threading.Event()
    handed_over: list[Callable[[], object]] = []
    with pytest.raises(StepTimeoutError, match="did not return") as caught:
        call_with_timeout(made.set, 0.01, handed_over.append)
    assert not caught.value.has_begun
    handed_over[0]()
    assert made.wait(PATIENCE_S)


def test_a_call_that_returns_too_late_is_undone():
    go_on, undone = threading.Event(), threading.Event()
    with pytest.raises(StepTimeoutError, match="did not return within") as caught:
        call_with_timeout(lambda: go_on.wait(PATIENCE_S), 0.05, at_once, undo=undone.set)
    assert caught.value.has_begun
    assert not caught.value.is_over()
    assert not undone.is_set()

    go_on.set()
    assert undone.wait(PATIENCE_S)
