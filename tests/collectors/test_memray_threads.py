"""memray's allocation profile, of threads that were running when its Tracker started."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from typing import Any

import memray
import pytest

from dramatiq_diag.collectors.memray import first_function
from dramatiq_diag.runtime.profile_function import EveryThreadsProfileFunction
from dramatiq_diag.text import MIB
from support import PATIENCE_S

_ITEMS = 100_000


@contextmanager
def running(function: Callable[[], object]) -> Iterator[threading.Thread]:
    """A thread that runs a function; it is over at the end."""
    thread = threading.Thread(target=function)
    thread.start()
    yield thread
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def stacks_of(path: Any, least_bytes: int) -> list[list[str]]:
    """Returns: The functions of each allocation of so many bytes or more, the inner first."""
    with memray.FileReader(path) as reader:
        records = [one for one in reader.get_allocation_records() if one.size >= least_bytes]
        return [[function for function, _, _ in record.stack_trace()] for record in records]


def test_a_thread_from_before_has_its_whole_stack_from_its_next_call_on(bench, settings, stored):
    given = settings(task_diagnostics=["memray"])
    started, allocated = threading.Event(), threading.Event()
    kept: list[bytes] = []

    def task() -> None:
        started.set()
        assert allocated.wait(PATIENCE_S)

    def outer() -> None:
        assert started.wait(PATIENCE_S)
        allocate()
        allocated.set()

    def allocate() -> None:
        kept.append(b"x" * (20 * MIB))

    with bench(given) as tasks, running(outer):
        task_id = tasks.run(task)

    (stack,) = stacks_of(stored(given).path(task_id, "memray_profile"), 20 * MIB)
    assert stack[:2] == ["allocate", "outer"]
    assert stack[-1] == "_bootstrap"


def test_within_a_call_from_before_it_has_none(bench, settings, stored):
    # memray would note the stack of that moment, and damage its file or end the process when the call ends.
    given = settings(task_diagnostics=["memray"])
    items: queue.SimpleQueue[int] = queue.SimpleQueue()
    kept: list[list[int]] = []

    def take() -> None:
        kept.append(list(map(queue.SimpleQueue.get, repeat(items, _ITEMS))))  # One call of C.

    def task() -> None:
        for number in range(_ITEMS):
            items.put(number)
        thread.join(PATIENCE_S)

    with bench(given) as tasks, running(take) as thread:
        task_id = tasks.run(task)

    assert len(kept[0]) == _ITEMS
    stacks = stacks_of(stored(given).path(task_id, "memray_profile"), 8 * _ITEMS)
    assert [] in stacks, stacks
    assert not any("take" in stack for stack in stacks)


def test_a_thread_whose_first_event_comes_when_the_recording_ends_keeps_no_profile_function():
    first_function().function(None, "call", None)  # The end has taken it away from this thread.

    assert sys.getprofile() is None


@pytest.mark.parametrize("has_own", [False, True], ids=["without", "with its own"])
def test_a_profile_function_is_set_on_threads_that_wait(has_own):
    seen: list[tuple[int, str]] = []
    go = threading.Event()
    ready = threading.Barrier(3)

    def function(_: object, event: str, __: object) -> None:
        seen.append((threading.get_ident(), event))
        sys.setprofile(None)

    def own(*_: object) -> None:
        pass

    def wait() -> None:
        if has_own:
            sys.setprofile(own)
        ready.wait(PATIENCE_S)
        assert go.wait(PATIENCE_S)
        len(())

    with running(wait) as first, running(wait) as second:
        ready.wait(PATIENCE_S)
        EveryThreadsProfileFunction(function).setting()()
        sys.setprofile(None)
        go.set()
        waiting = {first.ident, second.ident}
    assert waiting <= {thread_id for thread_id, _ in seen}
