"""Stacks of all threads: they are read without a hang, and at one moment."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from dramatiq_diag.runtime.frames import Look, awaited_by, thread_ids
from support import PATIENCE_S, ROOT

# The collector runs as soon as so many objects are made, and each frame is one of them.
_SCRIPT = """
import gc, os, threading, time
from dramatiq_diag.runtime.frames import Look, awaited_by, thread_ids

class Page:
    def __del__(self):
        thread = threading.Thread(target=print, args=("finalised",))
        thread.start()
        thread.join()

for _ in range(60):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
gc.collect()
gc.set_threshold(40)
page = Page()
page.itself = page
del page
ids = thread_ids()
assert len(ids) == 61, len(ids)
look = Look()
stacks = [look.thread(thread_id) for thread_id in ids]
look.take()
assert all(stacks)
gc.collect()
print("done", flush=True)
os._exit(0)
"""


def test_what_is_collected_as_garbage_meanwhile_may_start_a_thread():
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, timeout=PATIENCE_S)

    assert (done.stdout, done.stderr) == ("finalised\ndone\n", "")


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_stays_as_it_was(enabled):
    gc.enable() if enabled else gc.disable()
    try:
        assert threading.get_ident() in thread_ids()
        look = Look()
        places = look.thread(threading.get_ident())
        look.take()
        assert "test_the_collector_stays_as_it_was" in [code.co_name for code, _ in places]
        assert gc.isenabled() is enabled
    finally:
        gc.enable()


@contextmanager
def deep_threads(count: int) -> Iterator[list[int]]:
    """Threads that wait below a hundred calls. Yields their ids."""
    entered, leave = threading.Barrier(count + 1), threading.Event()

    def dive(depth: int) -> None:
        if depth:
            dive(depth - 1)
            return
        entered.wait(PATIENCE_S)
        leave.wait(PATIENCE_S)

    threads = [threading.Thread(target=dive, args=(100,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    entered.wait(PATIENCE_S)
    try:
        yield [thread.ident or 0 for thread in threads]
    finally:
        leave.set()
        for thread in threads:
            thread.join()


def test_nothing_runs_between_the_stacks_of_one_look():
    """Each of the hundred frames is an object that is made, and so a moment when a collection might begin."""
    seen: set[tuple[bool, bool]] = set()
    thresholds = gc.get_threshold()
    with deep_threads(2) as (first_id, second_id):
        look = Look()
        first, second = look.thread(first_id), look.thread(second_id)

        def note(_phase: str, _info: dict[str, int]) -> None:
            seen.add((bool(first), bool(second)))
            time.sleep(0)

        gc.callbacks.append(note)
        gc.set_threshold(1)
        try:
            look.take()
        finally:
            gc.set_threshold(*thresholds)
            gc.callbacks.remove(note)

    for places in (first, second):
        assert [code.co_name for code, _ in places].count("dive") == 101
    assert (True, False) not in seen


def test_the_frames_of_a_thread_are_not_kept():
    held: list[int] = []

    class Page:
        def __del__(self) -> None:
            held.append(threading.get_ident())

    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        page = Page()  # noqa: F841 - it ends with this call.
        entered.set()
        leave.wait(PATIENCE_S)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(PATIENCE_S)
    look = Look()
    places = look.thread(thread.ident or 0)
    look.take()
    thread_id = thread.ident
    leave.set()
    thread.join()

    assert "hold" in [code.co_name for code, _ in places]
    assert held == [thread_id]


def test_stacks_of_busy_threads_are_whole():
    command = [sys.executable, "-m", "torture.stacks", "--samples", "3000", "--seconds", "30"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30 + PATIENCE_S)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(" 0 of them torn\n")


@types.coroutine
def give_way():
    yield


async def innermost(*, runs: list[bool]):
    runs.append(awaited_by(chained[0])[2])
    await give_way()


async def numbers(runs):
    await innermost(runs=runs)
    yield 1


async def outermost(runs):
    async for _ in numbers(runs):
        pass
    await innermost(runs=runs)


chained: list[Any] = []


def test_a_coroutine_is_read_as_by_a_look_until_it_has_ended():
    runs: list[bool] = []
    chained[:] = [outermost(runs)]
    seen = []
    with suppress(StopIteration):
        while True:
            look = Look()
            links, objects = look.coroutine(chained[0])
            look.take()
            places, chain, is_running = awaited_by(chained[0])
            # A look ends at the iterator of an asynchronous generator, this goes on behind it.
            assert places[: len(links)] == [place for place, _, _ in links]
            assert [*map(id, chain)][: len(objects)] == [*map(id, objects)]
            assert not is_running
            assert [type(each).__name__ for each in chain[len(objects) :]] == (
                ["async_generator", "coroutine", "generator", "NoneType"] if len(seen) == 1 else []
            )
            seen.append([code.co_name for code, _ in places])
            chained[0].send(None)

    assert seen == [
        ["outermost"],
        ["outermost", "numbers", "innermost", "give_way"],
        ["outermost", "innermost", "give_way"],
    ]
    assert runs == [True, True]
    assert awaited_by(chained.pop()) == ([], [], False)
