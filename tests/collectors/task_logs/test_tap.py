"""The look-out in front of `logging`, alone."""

from __future__ import annotations

import gc
import logging
import sys
import threading
from typing import Any

import pytest

from dramatiq_diag.collectors.task_logs.tap import LogTap, RunLog
from support.logs import messages_of


def test_threads_of_one_run_do_not_take_each_other_s_questions(logger, kept):
    tap, written = LogTap(debug=True), []
    log = RunLog(tap, written.append)
    log.start()
    try:
        # Given a thread that has asked whether it may log, and has not logged yet
        assert logger.isEnabledFor(logging.DEBUG)
        # When another thread with the same context asks and logs
        import contextvars

        other = threading.Thread(target=contextvars.copy_context().run, args=(logger.debug, "of another thread"))
        other.start()
        other.join()
        # Then the first one's record is still the run's alone
        logger._log(logging.DEBUG, "of this thread", ())
    finally:
        log.stop()
        tap.close()

    assert [record.getMessage() for record in written] == ["of another thread", "of this thread"]
    assert kept.messages == []


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_taps_go_away_in_any_order(logger, kept, order):
    taps = [LogTap(debug=debug) for debug in (False, True, True)]
    written: list[Any] = []
    for tap in taps:
        log = RunLog(tap, written.append)
        log.start()
        logger.info("seen")
        log.stop()

    for number in order:
        taps[number].close()
        taps[number].close()
        logger.info("not seen")

    assert len(written) == len(taps)
    assert len(kept.records) == 2 * len(taps)


def test_somebody_else_in_front_stays_there_and_what_is_left_behind_does_nothing(logger, kept, monkeypatch):
    tap, written, seen = LogTap(debug=False), [], []
    log = RunLog(tap, written.append)
    original = logging.Logger.callHandlers
    log.start()
    ours = logging.Logger.callHandlers

    def of_others(self: logging.Logger, record: logging.LogRecord) -> None:
        seen.append(record)
        ours(self, record)

    try:
        monkeypatch.setattr(logging.Logger, "callHandlers", of_others)
        logger.info("first")
        log.stop()
        tap.close()
        assert logging.Logger.callHandlers is of_others
        logger.info("second")
    finally:
        monkeypatch.setattr(logging.Logger, "callHandlers", original)

    assert [record.getMessage() for record in written] == ["first"]
    assert [record.getMessage() for record in seen] == kept.messages == ["first", "second"]


def test_what_is_collected_as_garbage_while_a_line_is_written_may_log(log_of, logger):
    class Talkative:
        def __del__(self) -> None:
            logger.info("collected")

    def work() -> None:
        for number in range(20):
            loop: list[Any] = [Talkative()]
            loop.append(loop)
            del loop
            logger.info("%s", Collecting(number))

    class Collecting:
        def __init__(self, number: int) -> None:
            self.number = number

        def __str__(self) -> str:
            gc.collect()
            return f"line {self.number}"

    gc.freeze()  # Each line collects garbage, among all the objects of a test session otherwise.
    messages = messages_of(log_of("logs", work))
    assert [message for message in messages if message != "collected"] == [f"line {number}" for number in range(20)]
    assert messages.count("collected") == 20


def test_a_wrapper_stands_at_the_method_of_logging_that_it_wraps(logger, kept):
    """As its file is said to be logging's, another line of that file would be unrelated code."""
    tap, frames = LogTap(debug=True), []

    def look(_record: logging.LogRecord) -> None:
        frame = sys._getframe(1)
        frames.append((frame.f_code.co_name, frame.f_lineno, frame.f_code.co_filename))

    original = logging.Logger.callHandlers.__code__
    log = RunLog(tap, look)
    log.start()
    try:
        logger.warning("seen")
    finally:
        log.stop()
        tap.close()
    assert frames == [("callHandlers", original.co_firstlineno, original.co_filename)]
