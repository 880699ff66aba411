"""What the lines of a log are, and how long it may become."""

from __future__ import annotations

import logging
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from dramatiq_diag.collectors.task_logs.format import MAX_RECORD_CHARACTERS
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from support import PATIENCE_S, eventually
from support.logs import Hostile, lines_of, messages_of

BOTH = ["logs", "debug-logs"]


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
    own = [line for line in lines_of(stored(given), task_id) if "app.victim" in line]
    expected = [text for number in range(1000) for text in (f"line {number}", f"below {number}")]
    assert artifact.status == ArtifactStatus.PARTIAL
    assert [line.partition(": ")[2] for line in own] == (expected if name == "debug-logs" else expected[::2])
