"""C code that keeps the GIL for seconds."""

from __future__ import annotations

import ctypes
import re
import threading
import time
import uuid
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from dramatiq_diag.runtime.gil_watchdog import LEAST_S, GilStall, GilWatchdog
from dramatiq_diag.store.questions import NotExecutedError, QuestionKind, QuestionState, ask, find_question
from dramatiq_diag.store.store import Store
from dramatiq_diag.worker.gil_stalls import GilStalls
from dramatiq_diag.worker.tuning import Tuning
from support import PATIENCE_S, eventually

STALL_S = LEAST_S + 1

#: A thread that waits for a processor all the time looks like one that keeps the GIL. On a machine that is so busy none
#: of the two is named; it is not so busy each of so many times.
NOT_KNOWN = "it is not known which thread it was"
TRIALS = 3


@pytest.fixture
def given(settings):
    return settings(task_diagnostics=["logs"], watchdog=True)


@pytest.fixture
def often():
    """A worker reports itself, and looks at what is asked of it, without a pause worth mentioning."""
    return Tuning(report_s=0.1, attention_s=0.1)


def slow_subject() -> str:
    """Returns: A text for which a catastrophic regular expression takes a few seconds of a processor."""
    length, took_s = 16, 0.0
    while took_s < STALL_S / 8:
        length += 1
        began = time.thread_time()
        re.match("(a+)+$", "a" * length + "b")
        took_s = time.thread_time() - began
    return "a" * (length + 3) + "b"


class Over:
    """Lets the tasks end. The one that keeps the GIL looks at it without a call, which would be on its stack."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.is_set = False

    def set(self) -> None:
        self.is_set = True
        self.event.set()


def keep_gil_in_match(subject: str, over: Over) -> None:
    re.match("(a+)+$", subject)
    while not over.is_set:
        pass


def keep_gil_in_sleep(over: Over) -> None:
    ctypes.PyDLL("libc.so.6").sleep(int(STALL_S))
    while not over.is_set:
        pass


def note_of(store: Store, task_id: str) -> str | None:
    """Asks for the stack of a task. Returns: The note of the answer; None where there is none."""
    try:
        question_id = ask(store, QuestionKind.STACK, task_id, {}, expires_after_s=PATIENCE_S)
    except NotExecutedError:  # The process has not reported it yet.
        return None
    answer = eventually(lambda: answer_of(store, question_id), "the process answers")
    note: str | None = answer["note"]
    return note


def answer_of(store: Store, question_id: uuid.UUID) -> Any:
    with store.session() as session:
        question = find_question(session, question_id)
    return question.answer if question is not None and question.state == QuestionState.DONE else None


@pytest.mark.parametrize("call", ["match", "sleep"])
def test_the_thread_that_kept_the_gil_is_named_in_answers_and_in_the_logs_of_all_runs(
    given, store, stored, bench, often, call
):
    subject = slow_subject() if call == "match" else ""
    keep_gil = partial(keep_gil_in_match, subject) if call == "match" else keep_gil_in_sleep
    for _ in range(TRIALS):
        note, texts = keep_gil_beside_another(given, store, stored, bench, often, keep_gil)
        if NOT_KNOWN not in note:
            break

    assert note.startswith("No Python code ran in this process for")
    assert f"keep_gil_in_{call} at {__file__}" in note
    for text in texts:
        found = [line for line in text.splitlines() if "No Python code ran" in line]
        assert any(f"keep_gil_in_{call}" in line for line in found)
        assert len(found) == len(set(found))  # A machine that pauses may add another stall, but none is told of twice.


def keep_gil_beside_another(given, store, stored, bench, often, keep_gil):
    """Runs two tasks, one of which keeps the GIL. Returns: The note of an answer about the other, and both logs."""
    begin, over = threading.Event(), Over()

    def work() -> None:
        begin.wait(PATIENCE_S)
        time.sleep(0.5)  # The watchdog reads what the threads have used every quarter of a second.
        keep_gil(over)

    def idle() -> None:
        over.event.wait(PATIENCE_S)

    with bench(given, threads=3, tuning=often) as tasks:
        try:
            beside, message = tasks.actor(idle).send(), tasks.actor(work).send()
            eventually(lambda: len(tasks.diagnostics.process.runs) == 2, "both run")
            begin.set()
            note = eventually(lambda: note_of(store, beside.message_id), "an answer tells of it")
        finally:
            over.set()
        tasks.finish()

    task_ids = message.message_id, beside.message_id
    return note, [stored(given).data(task_id, "task_logs").decode() for task_id in task_ids]


@pytest.mark.parametrize("watchdog", [True, False])
def test_with_the_watchdog_turned_off_nothing_is_written(settings, stored, bench, monkeypatch, watchdog):
    given = settings(task_diagnostics=["logs"], watchdog=watchdog)
    stall = GilStall(seconds=0.001, ended_at=datetime.now(UTC), thread_name=None, thread_id=None)
    looks, look = list[int](), GilStalls.look

    def look_and_note(stalls: GilStalls, runs: Any) -> None:
        look(stalls, runs)
        looks.append(1)

    def work() -> None:
        seen = len(looks)
        eventually(lambda: len(looks) > seen + 1, "it was looked for a stall")

    # Given a process in which each look finds a stall
    monkeypatch.setattr(GilWatchdog, "look", lambda _: stall)
    monkeypatch.setattr(GilStalls, "look", look_and_note)
    with bench(given) as tasks:
        task_id = tasks.run(work)

    assert (stall.text.encode() in stored(given).data(task_id, "task_logs")) == watchdog
