"""What is a stall, and what is not."""

from __future__ import annotations

import ctypes
import resource
import threading
import time
from itertools import chain, repeat
from typing import Any

import pytest

from dramatiq_diag.runtime.gil_watchdog import GilWatchdog
from dramatiq_diag.runtime.thread_state import ThreadStateReader
from support import PATIENCE_S

_LEAST_S = 0.5

#: How long C code keeps the GIL.
_STALL_S = 2.0


def test_a_look_that_is_late_without_a_wait_for_the_gil_is_no_stall():
    """The looking thread may wait for a disk, and the process may be paused."""
    watchdog = GilWatchdog(least_s=_LEAST_S)
    assert watchdog.look() is None
    time.sleep(2 * _LEAST_S)
    assert watchdog.look() is None


def test_the_first_look_after_a_rest_is_no_stall():
    seconds = iter((0.0, 0.0, 1000.0, 1000.0))
    watchdog = GilWatchdog(lambda: next(seconds), least_s=_LEAST_S)
    assert watchdog.look() is None
    watchdog.rest()
    assert watchdog.look() is None


def waits_of(thread: threading.Thread) -> int:
    with open(f"/proc/self/task/{thread.native_id}/status") as file:
        return int(file.read().rpartition("\nvoluntary_ctxt_switches:")[2].split()[0])


def own_waits() -> int:
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def test_threads_that_pass_the_gil_on_are_no_stall():
    """On a machine that is busy each of them waits for a processor as well, and the looking thread comes late."""
    over = threading.Event()

    def spin() -> None:
        while not over.is_set():
            pass

    threads = [threading.Thread(target=spin, name=f"spin{number}") for number in range(3)]
    for thread in threads:
        thread.start()
    # Ten seconds, in which a machine that is idle would wake it 2,000 times.
    seconds = chain((0.0, 0.0), repeat(10.0))
    watchdog = GilWatchdog(lambda: next(seconds), least_s=_LEAST_S)
    try:
        assert watchdog.look() is None
        before, most = own_waits(), max(map(waits_of, threads))
        while own_waits() - before < 100:
            pass
        pause_s = 0.1
        while min(map(waits_of, threads)) - most < own_waits() - before:
            time.sleep(pause_s)  # Meanwhile the others pass it on among themselves.
            pause_s *= 2
        stall = watchdog.look()
    finally:
        over.set()
        for thread in threads:
            thread.join()

    assert stall is None


def test_a_look_does_not_give_up_the_gil(monkeypatch):
    """Python's own functions give it up for each file; beside threads that compute, a look then took 0.3 s."""

    def refuse(name: Any, *_: Any, **__: Any) -> Any:
        raise AssertionError(f"{name} was opened by a function that gives up the GIL")

    watchdog = GilWatchdog()
    other = threading.Thread(target=time.sleep, args=(0.1,))
    other.start()
    with monkeypatch.context() as patched:
        patched.setattr("builtins.open", refuse)
        patched.setattr("os.open", refuse)
        watchdog.look()
    other.join()


def keep_gil_of_all(seconds: float) -> None:
    """A call in C that keeps the GIL."""
    ctypes.PyDLL("libc.so.6").usleep(int(seconds * 1e6))


@pytest.mark.parametrize("late_s", [0.0, 0.5])
def test_a_wait_for_the_gil_is_a_stall_and_the_task_that_kept_it_is_named(late_s, monkeypatch):
    ready, over = threading.Event(), list[bool]()

    def keep_gil() -> None:
        ready.wait(PATIENCE_S)
        keep_gil_of_all(_STALL_S)
        while not over:  # It calls nothing: its innermost frame is the one of the call that kept the GIL.
            pass

    # Given a machine on which the looking thread gets no processor for a while, and the other one waits for the GIL
    read = ThreadStateReader.read

    def read_late(*arguments: Any) -> Any:
        keep_gil_of_all(late_s)
        return read(*arguments)

    monkeypatch.setattr(ThreadStateReader, "read", read_late)
    keeper = threading.Thread(target=keep_gil, name="keeper")
    keeper.start()
    # A shorter wait for the GIL is not the one that is looked for: a busy machine makes some, too.
    watchdog, stall = GilWatchdog(least_s=_STALL_S * 0.9), None
    give_up_at = time.monotonic() + PATIENCE_S
    try:
        assert watchdog.look() is None
        ready.set()
        while stall is None:
            assert time.monotonic() < give_up_at
            time.sleep(0.01)
            stall = watchdog.look()
    finally:
        over.append(True)
        keeper.join()

    assert stall.seconds >= _STALL_S * 0.9
    assert stall.thread_name == "keeper"
    assert "keep_gil" in stall.frames[0].function
    assert "the thread 'keeper' kept the GIL in C code, called by" in stall.text
