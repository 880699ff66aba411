"""Calls that note how far they came."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest
from dramatiq.middleware.threading import raise_thread_exception

from dramatiq_diag.runtime.interrupts import NotedCall, forget_interrupts, watch_interrupts
from dramatiq_diag.runtime.profile_hook import ProfileHook
from support import PATIENCE_S


def test_a_call_notes_that_it_began_and_returned():
    seen: list[tuple[bool, bool]] = []
    noted = NotedCall(lambda: seen.append((noted.has_begun, noted.has_returned)))

    assert (noted.has_begun, noted.has_returned) == (False, False)
    noted.make()
    assert seen == [(True, False)]
    assert (noted.has_begun, noted.has_returned) == (True, True)


def test_a_call_that_an_exception_ended_has_begun_and_not_returned():
    noted = NotedCall(lambda: [].pop())

    with pytest.raises(IndexError):
        noted.make()
    assert (noted.has_begun, noted.has_returned) == (True, False)


class Interrupted(BaseException):
    """What is raised in a thread."""


class SlowHolder:
    """A measurement whose end takes so long that the task ends meanwhile, or does not."""

    settled = True

    def __init__(self, messages: dict[int, Any], thread_id: int, following: Any) -> None:
        self._change = messages, thread_id, following

    def end_early(self, reason: str) -> None:
        messages, thread_id, following = self._change
        if following is None:
            del messages[thread_id]
        else:
            messages[thread_id] = following


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Later versions need no wrapper.")
@pytest.mark.parametrize(
    ("before", "after", "is_raised"), [(1, 2, False), (1, None, False), (1, 1, True), (0, 1, True)]
)
def test_an_interrupt_does_not_reach_the_next_task_of_its_thread(before: int, after: int, is_raised: bool) -> None:
    """To end the Tracker of another task took up to a second, in which the interrupted task could end."""
    tasks = [(f"message {number}", float(number)) for number in range(3)]
    hook, outcome = ProfileHook(), list[str]()
    started, go_on = threading.Event(), threading.Event()

    def execute() -> None:
        try:
            started.set()
            while not go_on.wait(0.001):
                pass
            outcome.append("ended")
        except Interrupted:
            outcome.append("interrupted")

    thread = threading.Thread(target=execute)
    thread.start()
    assert started.wait(PATIENCE_S)
    thread_id = thread.ident or 0
    messages: dict[int, Any] = {thread_id: tasks[before]} if before else {}
    following = None if after is None else tasks[after]
    assert hook.acquire_exclusive(SlowHolder(messages, thread_id, following), "tracked", 0.0) is None
    watch_interrupts(hook, messages)
    try:
        raise_thread_exception(thread_id, Interrupted)
        if not is_raised:
            go_on.set()
        thread.join(PATIENCE_S)
    finally:
        go_on.set()
        forget_interrupts(hook)
        thread.join()

    assert outcome == ["interrupted" if is_raised else "ended"]
