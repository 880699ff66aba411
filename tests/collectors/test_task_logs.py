"""The collectors `logs` and `debug-logs`: a run's own records, all of them, and nothing changed for anybody else."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dramatiq_diag import Settings
from dramatiq_diag.collectors.task_logs.format import MAX_RECORD_CHARACTERS
from dramatiq_diag.collectors.task_logs.tap import LogTap, RunLog
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from support import PATIENCE_S, eventually
from support.store import Stored

METHODS = ("callHandlers", "isEnabledFor", "_log")

BOTH = ["logs", "debug-logs"]


class Kept(logging.Handler):
    """Keeps what a handler of the application sees."""

    def __init__(self, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def messages(self) -> list[str]:
        return [record.getMessage() for record in self.records]


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


def messages_of(log: str) -> list[str]:
    """Returns: The first line of each record, without time, level and logger."""
    return [line.partition(": ")[2] for line in log.splitlines() if not line.startswith((" ", "#"))]


# What a line is.


def test_a_line_has_time_level_logger_and_message(log_of, logger):
    began = datetime.now(UTC) - timedelta(milliseconds=1)

    log = log_of("logs", lambda: logger.warning("%d of %s", 3, "ten"))

    found = re.fullmatch(r"(\S+Z) WARNING  (\S+): 3 of ten\n", log)
    assert found is not None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found[1])
    assert began <= datetime.fromisoformat(found[1]) <= datetime.now(UTC)
    assert found[2] == logger.name


def test_an_exception_and_a_stack_stand_below_their_record(log_of, logger):
    def work() -> None:
        try:
            raise ValueError("two\nlines")
        except ValueError:
            logger.exception("It failed.", stack_info=True)
        logger.error("after", exc_info=True)  # noqa: LOG014 - there is none.

    lines = log_of("logs", work).splitlines()

    assert [line for line in lines if not line.startswith("    ")] == [lines[0], lines[-1]]
    assert lines[0].endswith(": It failed.")
    assert lines[1] == "    Traceback (most recent call last):"
    assert "    ValueError: two" in lines
    assert "    Stack (most recent call last):" in lines
    assert lines[-1].endswith(": after")


def test_what_a_failed_task_raised_is_in_its_log(bench, settings, stored):
    given = settings(task_diagnostics=["logs"])

    def fail() -> None:
        raise RuntimeError("of its own")

    with bench(given) as tasks:
        task_id = tasks.run(fail)

    log = stored(given).data(task_id, "task_logs").decode()
    assert "    RuntimeError: of its own" in log.splitlines()


@pytest.mark.parametrize("name", BOTH)
def test_a_task_that_logs_nothing_has_an_empty_log(bench, settings, stored, name):
    given = settings(task_diagnostics=[name])

    with bench(given) as tasks:
        task_id = tasks.run(lambda: None, actor_name="work")

    artifact = stored(given).artifacts(task_id)["task_logs"]
    data = stored(given).data(task_id, "task_logs")
    lines = [line for line in data.decode().splitlines() if "app" in line]
    assert (artifact.status, artifact.size_bytes, lines) == (ArtifactStatus.STORED, len(data), [])
    assert name == "debug-logs" or data == b""


class Hostile:
    """Breaks whatever makes text of it."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __str__(self) -> str:
        raise self.error

    __repr__ = __str__


HOSTILE = [
    # Messages that cannot be made
    pytest.param("%d", ("x",), "<the message could not be made: TypeError>", id="wrong-arguments"),
    pytest.param("%s %s", (1,), "<the message could not be made: TypeError>", id="too-few"),
    pytest.param("%s", (Hostile(ValueError()),), "<the message could not be made: ValueError>", id="str-raises"),
    pytest.param("%s", (Hostile(SystemExit()),), "<the message could not be made: SystemExit>", id="str-exits"),
    pytest.param("%s", (Hostile(RecursionError()),), "<the message could not be made: RecursionError>", id="recurses"),
    pytest.param(Hostile(OSError()), (), "<the message could not be made: OSError>", id="message-raises"),
    # Characters
    pytest.param("lone \ud800", (), "lone \\ud800", id="surrogate"),
    pytest.param("nul \0 escape \x1b[2J", (), "nul \\x00 escape \\x1b[2J", id="controls"),
    pytest.param("line\u2028paragraph\u2029next\x85", (), "line\\u2028paragraph\\u2029next\\x85", id="line-ends"),
    pytest.param("grün 🐇\ttab", (), "grün 🐇\ttab", id="unicode"),
    pytest.param("", (), "", id="nothing"),
    pytest.param(None, (), "None", id="none"),
]


@pytest.mark.parametrize(("message", "arguments", "expected"), HOSTILE)
@pytest.mark.parametrize(("name", "level"), [("logs", logging.INFO), ("debug-logs", logging.DEBUG)])
def test_no_record_harms_the_task_or_the_log(log_of, logger, monkeypatch, name, level, message, arguments, expected):
    logger.propagate = False
    logger.addHandler(logging.NullHandler())

    def work() -> None:
        logger.log(level, message, *arguments)
        logger.log(level, "after")

    log = log_of(name, work)

    own = [line for line in log.split("\n") if logger.name in line]
    assert [line.partition(f"{logger.name}: ")[2] for line in own] == [expected, "after"]


def test_a_record_of_many_lines_cannot_pass_for_another(log_of, logger):
    forged = "2026-01-01T00:00:00.000Z INFO     app: forged"

    log = log_of("logs", lambda: logger.info("first\n%s\r\n%s", forged, forged))

    assert len(messages_of(log)) == 1
    assert all(line.startswith("    ") for line in log.split("\n")[1:-1])


def test_a_logger_s_name_with_a_line_end_makes_no_second_line(log_of):
    logger = logging.getLogger("app.two\nlines")

    log = log_of("logs", lambda: logger.warning("once"))

    assert log.count("\n") == 1
    assert log.endswith("app.two\\nlines: once\n")


def test_a_huge_message_is_cut(log_of, logger):
    log = log_of("logs", lambda: logger.info("x" * 10_000_000))

    assert MAX_RECORD_CHARACTERS < len(log) < MAX_RECORD_CHARACTERS + 200
    assert log.endswith(f"<{10_000_000 - MAX_RECORD_CHARACTERS} more characters>\n")


def test_the_traceback_of_a_huge_exception_is_cut(log_of, logger):
    def work() -> None:
        try:
            raise ValueError("x" * 10_000_000)
        except ValueError:
            logger.exception("It failed.")

    assert len(log_of("logs", work)) < 2 * MAX_RECORD_CHARACTERS


def test_what_is_logged_while_a_message_is_made_is_a_record_of_its_own(log_of, logger):
    class Talkative:
        def __init__(self, depth: int) -> None:
            self.depth = depth

        def __str__(self) -> str:
            logger.info("made %s", Talkative(self.depth - 1) if self.depth else "nothing")
            return f"depth {self.depth}"

    # Another handler would make the message once more, and the records in it as well.
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    log = log_of("logs", lambda: logger.info("%s", Talkative(1)))

    assert messages_of(log) == ["made nothing", "made depth 0", "depth 1"]


def test_an_object_that_logs_itself_without_end_ends(bench, settings, stored, logger):
    given = settings(task_diagnostics=["logs"])

    class Endless:
        def __str__(self) -> str:
            logger.info("%s", self)
            return "never"

    with bench(given) as tasks:
        task_id = tasks.run(lambda: logger.info("before"), actor_name="work")
        # What other handlers make of such an object is their own matter; here there is none but the run's log.
        logger.propagate = False
        logger.addHandler(logging.NullHandler())
        endless_id = tasks.run(lambda: logger.info("%s", Endless()), actor_name="endless")

    assert messages_of(stored(given).data(task_id, "task_logs").decode()) == ["before"]
    artifact = stored(given).artifacts(endless_id)["task_logs"]
    assert stored(given).runs(endless_id)[0].status == RunStatus.SUCCEEDED
    assert artifact.status == ArtifactStatus.PARTIAL
    assert "could not be written" in artifact.reason


# The limit.


def test_a_log_has_a_limit_and_says_what_is_missing(bench, settings, stored, logger):
    given = settings(task_diagnostics=["logs"], logs_max_bytes=2000)

    def work() -> None:
        for number in range(100):
            logger.info("%03d %s", number, "ä" * 40)

    with bench(given) as tasks:
        task_id = tasks.run(work)

    log = stored(given).data(task_id, "task_logs").decode()
    artifact = stored(given).artifacts(task_id)["task_logs"]
    whole = [line for line in log.splitlines() if not line.startswith("#")]
    assert [int(message[:3]) for message in messages_of(log)] == list(range(len(whole)))
    assert 1500 < len("\n".join(whole).encode()) <= 2000
    left_out = f"{100 - len(whole)} records were left out at the end of the log"
    assert artifact.status == ArtifactStatus.PARTIAL
    assert artifact.reason.startswith(left_out)
    assert "DRAMATIQ_DIAG_LOGS_MAX_BYTES" in artifact.reason
    assert log.splitlines()[-1] == f"# {artifact.reason}"


# Whose records.


@pytest.mark.parametrize("name", BOTH)
def test_each_run_has_its_own_lines_and_all_of_them(bench, settings, stored, logger, name):
    given = settings(task_diagnostics=[name])
    threads, coroutines, lines = 8, 10, 100
    started = threading.Barrier(threads)
    waiting: list[asyncio.Event] = []

    # Given eight tasks on threads of their own, which log at once
    def on_a_thread(who: str) -> None:
        started.wait(PATIENCE_S)
        for number in range(lines):
            logger.info("%s %d", who, number)

    # And ten coroutines that wait for each other after each line
    async def in_a_coroutine(who: str) -> None:
        waiting.append(asyncio.Event())
        if len(waiting) == coroutines:
            for event in waiting:
                event.set()
        await waiting[-1].wait()
        for number in range(lines):
            logger.info("%s %d", who, number)
            await asyncio.sleep(0)

    # When they run
    expected: dict[str, str] = {}
    with bench(given, threads=threads) as tasks:
        actor = tasks.actor(on_a_thread)
        for number in range(threads):
            expected[actor.send(f"thread{number}").message_id] = f"thread{number}"
        tasks.finish()
    with bench(given, threads=coroutines) as tasks:
        actor = tasks.actor(in_a_coroutine)
        for number in range(coroutines):
            expected[actor.send(f"coroutine{number}").message_id] = f"coroutine{number}"
        tasks.finish()

    # Then each log is its task's alone
    assert len(waiting) == coroutines
    for task_id, who in expected.items():
        log = stored(given).data(task_id, "task_logs").decode()
        own = [line.partition(f"{logger.name}: ")[2] for line in log.splitlines() if logger.name in line]
        assert own == [f"{who} {number}" for number in range(lines)]


def test_what_others_log_meanwhile_is_not_in_it(bench, settings, stored, logger):
    given = settings(task_diagnostics=["logs"])
    runs, logged = threading.Event(), threading.Event()

    def work() -> None:
        logger.info("before")
        child = threading.Thread(target=logger.info, args=("of a thread of its own",))
        child.start()
        child.join()
        runs.set()
        logged.wait(PATIENCE_S)
        logger.info("after")

    with bench(given) as tasks:
        message = tasks.actor(work).send()
        runs.wait(PATIENCE_S)
        logger.info("of the main thread")
        logged.set()
        tasks.finish()
        again = tasks.run(lambda: None, actor_name="next")

    assert messages_of(stored(given).data(message.message_id, "task_logs").decode()) == ["before", "after"]
    assert stored(given).data(again, "task_logs") == b""


def test_what_has_the_context_of_a_coroutine_belongs_to_its_run(log_of, logger):
    async def work() -> None:
        await asyncio.gather(part("first"), part("second"), asyncio.to_thread(logger.info, "third"))

    async def part(name: str) -> None:
        await asyncio.sleep(0)
        logger.info(name)

    assert sorted(messages_of(log_of("logs", work))) == ["first", "second", "third"]


@pytest.mark.parametrize(("name", "level"), [("logs", logging.INFO), ("debug-logs", logging.DEBUG)])
def test_what_is_logged_after_the_run_is_nobody_s(bench, settings, stored, logger, kept, name, level):
    given = settings(task_diagnostics=[name])
    go_on = threading.Event()
    left: list[asyncio.Task[None]] = []

    # Given a task that leaves a coroutine behind
    async def later() -> None:
        await asyncio.to_thread(go_on.wait, PATIENCE_S)
        logger.log(level, "too late")
        logger.info("the end")

    async def work() -> None:
        left.append(asyncio.create_task(later()))

    # When that logs after the run has ended, and while others run
    with bench(given) as tasks:
        first = tasks.run(work)
        go_on.set()
        eventually(lambda: "the end" in kept.messages, "the coroutine has ended")
        second = tasks.run(lambda: None, actor_name="next")
        left.clear()

    # Then it is in no log, and for others it is as ever
    assert kept.messages == ["too late", "the end"][level < logging.INFO :]
    for task_id in (first, second):
        assert b"too late" not in stored(given).data(task_id, "task_logs")


def test_a_process_that_a_task_forks_is_another(log_of, logger):
    def work() -> None:
        logger.info("of the task")
        child = os.fork()
        if child == 0:
            logger.info("of the child")
            os._exit(0)
        os.waitpid(child, 0)

    assert messages_of(log_of("logs", work)) == ["of the task"]


def test_a_task_that_leaves_its_context_is_still_the_run(log_of, logger):
    import contextvars

    assert messages_of(log_of("logs", lambda: contextvars.Context().run(logger.info, "elsewhere"))) == ["elsewhere"]


# What others see.


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
    runs, looked = threading.Event(), threading.Event()
    inside: list[bool] = []

    def work() -> None:
        inside.append(logger.isEnabledFor(logging.DEBUG))
        runs.set()
        looked.wait(PATIENCE_S)

    with bench(given) as tasks:
        tasks.actor(work).send()
        runs.wait(PATIENCE_S)
        outside = logger.isEnabledFor(logging.DEBUG), logger.getEffectiveLevel()
        logger.debug("of the main thread")
        looked.set()
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
    own = [line.partition(f"{logger.name}: ")[2] for line in _lines(stored(given), plain) if logger.name in line]
    assert own == [f"logs info {number}" for number in range(50)]
    own = [line.partition(f"{logger.name}: ")[2] for line in _lines(stored(given), debug) if logger.name in line]
    assert own == [f"debug-logs {level} {number}" for number in range(50) for level in ("debug", "info")]
    assert sorted(kept.messages) == sorted(f"{name} info {number}" for name in BOTH for number in range(50))


def _lines(store: Stored, task_id: str) -> list[str]:
    return store.data(task_id, "task_logs").decode().splitlines()


def test_both_at_once_give_one_log_with_debug(bench, settings, stored, logger):
    given = settings(task_diagnostics=["logs", "debug-logs"])

    with bench(given) as tasks:
        task_id = tasks.run(lambda: logger.debug("once"), actor_name="work")

    assert set(stored(given).artifacts(task_id)) == {"task_logs"}
    assert [line for line in _lines(stored(given), task_id) if line.endswith(": once")] != []


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


# The look-out in front of `logging`, alone.


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


# A kill.

_VICTIM = """
import logging, os, signal, sys
import dramatiq
from dramatiq.brokers.stub import StubBroker
from dramatiq_diag import Diagnostics, Settings

broker = StubBroker()
broker.add_middleware(Diagnostics(Settings(data_dir=sys.argv[1], task_diagnostics=[sys.argv[2]], cleanup_interval=0)))

@dramatiq.actor(broker=broker, max_retries=0)
def work():
    logger = logging.getLogger("app.victim")
    for number in range(1000):
        logger.warning("line %d", number)
        logger.debug("below %d", number)
    os.kill(os.getpid(), signal.SIGKILL)

print(work.send().message_id, flush=True)
worker = dramatiq.Worker(broker, worker_threads=1)
worker.start()
broker.join("default")
worker.stop()
"""


@pytest.mark.parametrize("name", BOTH)
def test_a_killed_worker_leaves_the_lines_up_to_the_kill(bench, settings, stored, name):
    given = settings(task_diagnostics=[name])

    # Given a worker that is killed by its task
    victim = subprocess.run(
        [sys.executable, "-c", _VICTIM, str(given.data_dir), name], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert victim.returncode == -signal.SIGKILL, victim.stderr
    task_id = victim.stdout.strip()

    # When another one looks after what it left
    with bench(given):
        eventually(lambda: stored(given).runs(task_id), "the run is published")
        eventually(lambda: stored(given).runs(task_id)[0].status == RunStatus.INTERRUPTED, "it is known to be over")

    # Then nothing of its log is missing
    artifact = stored(given).artifacts(task_id)["task_logs"]
    own = [line for line in _lines(stored(given), task_id) if "app.victim" in line]
    expected = [text for number in range(1000) for text in (f"line {number}", f"below {number}")]
    assert artifact.status == ArtifactStatus.PARTIAL
    assert [line.partition(": ")[2] for line in own] == (expected if name == "debug-logs" else expected[::2])
