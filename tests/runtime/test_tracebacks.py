"""Tracebacks of failed runs: what they show, what they never do to a task, and that they are bounded."""

from __future__ import annotations

import asyncio
import gc
import linecache
import sys
import uuid
import weakref
from collections.abc import Callable

import pytest
from dramatiq.middleware import TimeLimitExceeded

from dramatiq_diag.runtime.tracebacks import MAX_LENGTH, take_traceback, traceback_text
from dramatiq_diag.spool.reader import read_finished_run
from dramatiq_diag.statuses import RunStatus
from dramatiq_diag.worker import run as run_module
from support.spool import dead_entry, start_record

FAILED = {
    "end": {
        "status": "failed",
        "finished_at": "2026-01-01T00:00:00+00:00",
        "duration_ms": 1.0,
        "exception_type": "ValueError",
        "exception_message": "x",
    }
}


def open_the_report(name: str) -> None:
    raise ValueError(f"no such report: {name}")


def fail() -> None:
    open_the_report("may")


def raised_by(fn: Callable[[], object]) -> BaseException:
    try:
        fn()
    except BaseException as error:
        return error
    raise AssertionError("it raised nothing")


def text_of(fn: Callable[[], object]) -> str:
    return traceback_text(take_traceback(raised_by(fn)))


# In a worker.


def test_a_failed_run_has_its_traceback_from_the_task_on(bench, settings, stored):
    given = settings(task_diagnostics=["memory"])
    with bench(given) as tasks:
        task_id = tasks.run(fail)

    (run,) = stored(given).runs(task_id)
    assert run.status == RunStatus.FAILED
    lines = run.exception_traceback.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].endswith("in fail")
    assert lines[2].strip() == 'open_the_report("may")'
    assert lines[-1] == "ValueError: no such report: may"
    assert "dramatiq/" not in run.exception_traceback.replace("dramatiq_diag", "")


class MuteError(Exception):
    """Its text cannot be made, and what comes instead is no `Exception`."""

    def __str__(self) -> str:
        raise KeyboardInterrupt


def test_an_exception_whose_text_raises_what_nothing_catches_costs_no_more_than_its_text(bench, settings, stored):
    def be_mute() -> None:
        raise MuteError

    # Given a worker with one thread
    given = settings(task_diagnostics=["memory"])
    with bench(given) as tasks:
        task_id = tasks.run(be_mute)
        later = tasks.run(open_the_report, "may")  # The thread is still there.

    (run,) = stored(given).runs(task_id)
    assert run.status == RunStatus.FAILED
    assert run.exception_message == "<its text could not be made: KeyboardInterrupt>"
    assert stored(given).runs(later)[0].status == RunStatus.FAILED


async def fail_later() -> None:
    await asyncio.sleep(0)
    fail()


def test_that_of_an_async_actor_begins_with_its_function(bench, settings, stored):
    given = settings(task_diagnostics=["memory"])
    with bench(given) as tasks:
        task_id = tasks.run(fail_later)

    (run,) = stored(given).runs(task_id)
    lines = run.exception_traceback.splitlines()
    assert lines[1].endswith("in fail_later")
    assert lines[-1] == "ValueError: no such report: may"


def test_a_run_that_succeeds_has_none(bench, settings, stored):
    given = settings(task_diagnostics=["memory"])
    with bench(given) as tasks:
        task_id = tasks.run(lambda: None, actor_name="nothing")

    assert stored(given).runs(task_id)[0].exception_traceback is None


def test_each_attempt_has_its_own(bench, settings, stored):
    given = settings(task_diagnostics=["memory"])
    with bench(given) as tasks:
        task_id = tasks.run(fail, max_retries=1)

    assert [run.exception_traceback.count("no such report: may") for run in stored(given).runs(task_id)] == [1, 1]


def test_what_a_coroutine_raises_is_shown(bench, settings, stored):
    async def fail_later() -> None:
        await asyncio.sleep(0)
        open_the_report("june")

    given = settings(task_diagnostics=["memory"])
    with bench(given) as tasks:
        task_id = tasks.run(fail_later)

    assert "in fail_later" in stored(given).runs(task_id)[0].exception_traceback


def test_no_source_is_read_on_the_task_s_thread_and_no_frame_is_kept(monkeypatch):
    class Large:
        pass

    def hold() -> None:
        large = Large()
        seen.append(weakref.ref(large))
        open_the_report("may")

    def read(*_: object) -> None:
        raise AssertionError("a file was read")

    seen: list[weakref.ref[Large]] = []
    with monkeypatch.context() as patch:
        patch.setattr(linecache, "updatecache", read)
        patch.setattr(linecache, "getline", read)
        taken = take_traceback(raised_by(hold))
    gc.collect()

    assert seen[0]() is None
    assert 'open_the_report("may")' in traceback_text(taken)


@pytest.mark.parametrize("step", ["take_traceback", "traceback_text"])
def test_a_traceback_that_breaks_costs_itself_alone(bench, settings, stored, monkeypatch, caplog, step):
    def break_down(_: object) -> None:
        raise RecursionError

    monkeypatch.setattr(run_module, step, break_down)
    given = settings(task_diagnostics=["memory"])
    with bench(given) as tasks:
        task_id = tasks.run(fail)

    (run,) = stored(given).runs(task_id)
    assert (run.exception_type, run.exception_traceback) == ("ValueError", None)
    assert stored(given).data(task_id, "memory_profile")
    assert "The traceback of a failed run was lost." in caplog.text


# Exceptions of all kinds.


class HostileError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class LeavingError(Exception):
    def __str__(self) -> str:
        raise SystemExit


class UnwillingError(ExceptionGroup):
    @property
    def exceptions(self) -> tuple[Exception, ...]:
        raise RuntimeError("no parts")


def chained() -> None:
    try:
        fail()
    except ValueError as error:
        raise KeyError("outer") from error


def in_a_handler() -> None:
    try:
        fail()
    except ValueError:
        raise KeyError("outer")  # noqa: B904 - that is the point.


def in_a_circle() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    raise first


def grouped() -> None:
    raise ExceptionGroup("several", [raised_by(fail), ExceptionGroup("inner", [KeyError("deep")])])


def noted() -> None:
    error = raised_by(fail)
    error.add_note("on line 7 of the file")
    raise error


def interrupted() -> None:
    raise TimeLimitExceeded


def wrong_syntax() -> None:
    compile("x = (\n", "made_up.py", "exec")


def hostile() -> None:
    raise HostileError


def leaves() -> None:
    raise LeavingError


def surrogates() -> None:
    raise ValueError("\ud800\0")


@pytest.mark.parametrize(
    ("fn", "shown"),
    [
        (chained, ["no such report", "direct cause", "KeyError: 'outer'"]),
        (in_a_handler, ["no such report", "During handling", "KeyError: 'outer'"]),
        (in_a_circle, ["second", "first"]),
        (grouped, ["several (2", "report: may", "inner (1", "KeyError: 'deep'"]),
        (noted, ["no such report", "on line 7 of the file"]),
        (interrupted, ["TimeLimitExceeded"]),
        (wrong_syntax, ["made_up.py", "SyntaxError"]),
        (hostile, ["in hostile", "HostileError"]),
        (leaves, ["in leaves", "LeavingError"]),
        (surrogates, ["ValueError: \\ud800\0"]),
    ],
)
def test_exceptions_of_all_kinds_are_shown(fn, shown):
    text = text_of(fn)

    places = [text.index(part) for part in shown]
    assert places == sorted(places)


@pytest.mark.parametrize("fn", [chained, grouped, wrong_syntax, hostile, leaves, surrogates, interrupted])
def test_they_come_through_a_worker(bench, settings, stored, fn):
    given = settings(task_diagnostics=["memory"])
    with bench(given) as tasks:
        task_id = tasks.run(fn)

    (run,) = stored(given).runs(task_id)
    assert run.status == RunStatus.FAILED
    assert f"in {fn.__name__}" in run.exception_traceback
    assert "\0" not in run.exception_traceback


# Bounds.


def recurse(depth: int) -> None:
    if depth == 0:
        open_the_report("may")
    recurse(depth - 1)


def alternate(depth: int) -> None:
    (lambda: alternate(depth - 1) if depth else open_the_report("may"))()


def endless() -> None:
    endless()


def long_chain() -> None:
    error: Exception | None = None
    for number in range(10_000):
        error, cause = ValueError(str(number)), error
        error.__cause__ = cause
    assert error is not None
    raise error


def large_group() -> None:
    raise ExceptionGroup("many", [ValueError(str(number)) for number in range(10_000)])


def deep_group() -> None:
    error: Exception = ValueError("leaf")
    for _ in range(900):
        error = ExceptionGroup("nested", [error])
    raise error


def long_message() -> None:
    raise ValueError("x" * 10_000_000 + "the end")


def long_notes() -> None:
    error = ValueError("noted")
    for _ in range(1000):
        error.add_note("y" * 1000)
    raise error


@pytest.mark.parametrize(
    ("fn", "shown"),
    [
        (lambda: recurse(900), "ValueError: no such report: may"),
        (lambda: alternate(400), "ValueError: no such report: may"),
        (endless, "RecursionError: maximum recursion depth exceeded"),
        (long_chain, "ValueError: its message, causes and parts are left out"),
        (large_group, "ExceptionGroup: its message, causes and parts are left out"),
        (deep_group, "ExceptionGroup: its message, causes and parts are left out"),
        (long_message, "the end"),
        (long_notes, "y" * 1000),
    ],
)
def test_a_text_is_bounded_and_its_end_is_kept(fn, shown):
    error = raised_by(fn)
    taken = take_traceback(error)

    text = traceback_text(taken)

    assert len(text) <= MAX_LENGTH
    assert text.startswith(("Traceback", "  + Exception Group Traceback"))
    assert shown in "\n".join(text.splitlines()[-3:])


def test_what_is_left_out_is_said():
    text = text_of(long_message)

    assert "characters or more are left out here]" in text
    assert "in long_message" in text


def test_an_exception_that_cannot_be_looked_into_is_refused():
    error = UnwillingError("unwilling", [ValueError()])

    with pytest.raises(RuntimeError):
        take_traceback(error)


def test_an_exception_that_was_never_raised_has_a_text():
    assert traceback_text(take_traceback(ValueError("x"))) == "ValueError: x\n"


def test_taking_leaves_the_exception_as_it_is():
    error = raised_by(chained)
    before = error.__traceback__, error.__cause__, error.__context__

    take_traceback(error)

    assert (error.__traceback__, error.__cause__, error.__context__) == before
    assert sys.exc_info() == (None, None, None)


# In the spool.


@pytest.mark.parametrize(
    ("record", "kept"),
    [
        ({"traceback": "Traceback: x"}, "Traceback: x"),
        ({"traceback": "\ud800"}, None),
        ({"traceback": "x" * MAX_LENGTH}, "x" * MAX_LENGTH),
        ({"traceback": "x" * (MAX_LENGTH + 1)}, None),
        ({"traceback": None}, None),
        ({"traceback": {"a": 1}}, None),
        ({"traceback": 7}, None),
    ],
)
def test_an_entry_s_traceback_is_not_trusted(tmp_path, record, kept):
    run_id = uuid.uuid4()
    entry = dead_entry(tmp_path, [start_record(run_id), FAILED, record], run_id)

    bundle = read_finished_run(entry)

    assert bundle is not None
    assert bundle.run.status == RunStatus.FAILED
    assert bundle.run.row()["exception_traceback"] == kept


def test_a_run_whose_process_died_before_it_was_saved_has_none(tmp_path):
    run_id = uuid.uuid4()

    bundle = read_finished_run(dead_entry(tmp_path, [start_record(run_id), FAILED], run_id))

    assert bundle is not None
    assert (bundle.run.exception_type, bundle.run.exception_traceback) == ("ValueError", None)
