"""What is a stall, and what is not."""

from __future__ import annotations

import ctypes
import threading
import time

from dramatiq_diag.runtime.gil_watchdog import GilWatchdog
from support import PATIENCE_S

_LEAST_S = 0.5


def test_a_look_that_is_late_without_a_wait_for_the_gil_is_no_stall():
    """The looking thread may wait for a disk, and the process may be paused."""
    watchdog = GilWatchdog(least_s=_LEAST_S)
    assert watchdog.look(()) is None
    time.sleep(2 * _LEAST_S)
    assert watchdog.look(()) is None


def test_the_first_look_after_a_rest_is_no_stall():
    seconds = iter((0.0, 0.0, 1000.0, 1000.0))
    watchdog = GilWatchdog(lambda: next(seconds), least_s=_LEAST_S)
    assert watchdog.look(()) is None
    watchdog.rest()
    assert watchdog.look(()) is None


def test_a_wait_for_the_gil_is_a_stall_and_the_task_that_kept_it_is_named():
    ready, over = threading.Event(), threading.Event()

    def keep_gil() -> None:
        ready.wait(PATIENCE_S)
        ctypes.PyDLL("libc.so.6").usleep(int(4 * _LEAST_S * 1e6))
        while not over.is_set():
            pass

    keeper = threading.Thread(target=keep_gil, name="keeper")
    keeper.start()
    watchdog, stall = GilWatchdog(least_s=_LEAST_S), None
    give_up_at = time.monotonic() + PATIENCE_S
    try:
        assert watchdog.look([keeper.ident]) is None
        ready.set()
        while stall is None:
            assert time.monotonic() < give_up_at
            time.sleep(0.01)
            stall = watchdog.look([keeper.ident])
    finally:
        over.set()
        keeper.join()

    assert stall.seconds >= _LEAST_S
    assert stall.thread_name == "keeper"
    assert "keep_gil" in stall.frames[0].function
    assert "the thread 'keeper' kept the GIL in C code, called by" in stall.text
