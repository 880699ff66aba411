"""What others see of `logs` and `debug-logs`: nothing changes for anybody else."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from support import PATIENCE_S
from support.logs import Hostile, Kept, lines_of, messages_of
from support.tasks import Gate

BOTH = ["logs", "debug-logs"]


@pytest.mark.parametrize("name", BOTH)
def test_a_logger_that_does_not_propagate_is_recorded_once(log_of, logger, kept, name):
    logger.propagate = False

    log = log_of(name, lambda: logger.info("once"))

    assert messages_of(log).count("once") == 1
    assert kept.messages == ["once"]


def test_logging_that_nobody_configured_still_writes_warnings_and_may_still_be_configured(log_of, monkeypatch, capsys):
    monkeypatch.setattr(logging.root, "handlers", [])
    last_resort = Kept(logging.WARNING)
    monkeypatch.setattr(logging, "lastResort", last_resort)
    configured: list[int] = []

    def work() -> None:
        logging.getLogger("app").warning("to the last resort")
        logging.basicConfig(handlers=[Kept()])
        configured.append(len(logging.root.handlers))
        logging.root.handlers.clear()

    assert messages_of(log_of("logs", work)) == ["to the last resort"]
    assert "to the last resort" in last_resort.messages
    assert configured == [1]


def test_debug_logs_shows_nobody_else_more(log_of, logger, kept, caplog):
    quiet = logging.getLogger(f"{logger.name}.quiet")
    quiet.setLevel(logging.ERROR)
    at_debug = Kept(logging.DEBUG)
    later = Kept()
    logging.root.addHandler(at_debug)
    levels: list[Any] = []

    def work() -> None:
        logger.debug("1")
        logger.info("2")
        quiet.warning("3", stacklevel=2)
        quiet.error("4")
        logger.addHandler(later)
        logger.debug("5")
        logger.info("6")
        logger.log(5, "below DEBUG")
        levels.extend((logger.getEffectiveLevel(), logger.level, quiet.getEffectiveLevel()))

    try:
        log = log_of("debug-logs", work)
    finally:
        logging.root.removeHandler(at_debug)

    own = [line.partition(": ")[2] for line in log.splitlines() if logger.name in line]
    assert own == ["1", "2", "3", "4", "5", "6"]
    assert kept.messages == ["2", "4", "6"]
    assert later.messages == ["6"]
    assert [record.getMessage() for record in at_debug.records if record.name.startswith(logger.name)] == [*"246"]
    assert levels == [logging.INFO, logging.INFO, logging.ERROR]
    # Handlers are told where the call is, not where it was looked at
    assert {record.funcName for record in kept.records} == {"work"}
    assert {record.filename for record in kept.records} == {Path(__file__).name}


def test_debug_logs_enables_levels_for_its_run_alone(bench, settings, stored, logger, kept):
    given = settings(task_diagnostics=["debug-logs"])
    gate = Gate()
    inside: list[bool] = []

    def work() -> None:
        inside.append(logger.isEnabledFor(logging.DEBUG))
        gate.wait()

    with bench(given) as tasks:
        tasks.actor(work).send()
        gate.reached.wait(PATIENCE_S)
        outside = logger.isEnabledFor(logging.DEBUG), logger.getEffectiveLevel()
        logger.debug("of the main thread")
        gate.opened.set()
        tasks.finish()
        between = logger.isEnabledFor(logging.DEBUG)

    assert inside == [True]
    assert outside == (False, logging.INFO)
    assert between is False
    assert kept.messages == []


def test_two_runs_at_once_each_get_what_they_asked_for(bench, settings, stored, logger, kept):
    given = settings(task_diagnostics_on_request=["logs", "debug-logs"])
    both = threading.Barrier(2)

    def work(who: str) -> None:
        for number in range(50):
            both.wait(PATIENCE_S)
            logger.debug("%s debug %d", who, number)
            logger.info("%s info %d", who, number)

    # When one run collects `logs`, and another one `debug-logs`
    with bench(given, threads=2) as tasks:
        actor = tasks.actor(work)
        plain, debug = (actor.send_with_options(args=(name,), diagnostics=[name]).message_id for name in BOTH)
        tasks.finish()

    # Then each has its own, and the application's handler saw nothing of the second's
    own = [line.partition(f"{logger.name}: ")[2] for line in lines_of(stored(given), plain) if logger.name in line]
    assert own == [f"logs info {number}" for number in range(50)]
    own = [line.partition(f"{logger.name}: ")[2] for line in lines_of(stored(given), debug) if logger.name in line]
    assert own == [f"debug-logs {level} {number}" for number in range(50) for level in ("debug", "info")]
    assert sorted(kept.messages) == sorted(f"{name} info {number}" for name in BOTH for number in range(50))


def test_both_at_once_give_one_log_with_debug(bench, settings, stored, logger):
    given = settings(task_diagnostics=["logs", "debug-logs"])

    with bench(given) as tasks:
        task_id = tasks.run(lambda: logger.debug("once"), actor_name="work")

    assert set(stored(given).artifacts(task_id)) == {"task_logs"}
    assert [line for line in lines_of(stored(given), task_id) if line.endswith(": once")] != []


def test_disabled_loggers_and_logging_disable_are_respected(log_of, logger):
    muted = logging.getLogger(f"{logger.name}.muted")

    def work() -> None:
        muted.disabled = True
        muted.error("of a disabled logger")
        muted.debug("of a disabled logger")
        muted.disabled = False
        logging.disable(logging.INFO)
        logger.debug("disabled")
        logger.info("disabled")
        logging.disable(logging.NOTSET)
        logger.debug("enabled")

    log = log_of("debug-logs", work)

    assert [line.partition(": ")[2] for line in log.splitlines() if logger.name in line] == ["enabled"]


def test_filters_of_a_logger_decide_about_records_of_a_run_as_well(log_of, logger):
    def keep(record: logging.LogRecord) -> bool:
        if record.getMessage() == "broken":
            raise OSError("a broken filter")
        return "secret" not in record.getMessage()

    logger.addFilter(keep)

    def work() -> None:
        logger.debug("a secret")
        logger.debug("broken")
        logger.debug("no news")

    messages = [message for message in messages_of(log_of("debug-logs", work)) if message]
    own = [message for message in messages if message in ("a secret", "no news", "<a call that cannot be logged>")]
    assert own == ["<a call that cannot be logged>", "no news"]


@pytest.mark.parametrize(
    "options",
    [{"extra": {"message": "taken"}}, {"extra": 7}, {"unknown": 1}, {"stack_info": Hostile(ValueError())}],
    ids=["taken-name", "no-mapping", "unknown-option", "hostile"],
)
def test_a_debug_call_that_was_never_good_harms_no_task_now(log_of, logger, options):
    log = log_of("debug-logs", lambda: logger.debug("never good", **options))

    assert sum(logger.name in line for line in log.splitlines()) == 1


def test_levels_that_change_while_a_run_runs_count_at_once(log_of, logger, kept):
    def work() -> None:
        assert logger.isEnabledFor(logging.DEBUG)  # And nothing is logged upon it.
        logger.setLevel(logging.DEBUG)
        logger.debug("for all")
        logger.setLevel(logging.WARNING)
        logger.info("for the run")

    log = log_of("debug-logs", work)

    own = [line.partition(": ")[2] for line in log.splitlines() if logger.name in line]
    assert own == ["for all", "for the run"]
    assert kept.messages == ["for all"]


def test_a_record_that_the_application_hands_over_itself_reaches_its_handlers(log_of, logger, kept):
    def work() -> None:
        record = logging.makeLogRecord({"name": logger.name, "levelno": logging.DEBUG, "msg": "handed over"})
        logger.handle(record)

    log = log_of("debug-logs", work)

    assert sum("handed over" in line for line in log.splitlines()) == 1
    assert kept.messages == ["handed over"]
