"""The CPU time of the threads of this package."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dramatiq_diag.runtime.own_threads import own_cpu_s


@contextmanager
def thread_that_spent(cpu_s: float, name: str) -> Iterator[None]:
    """Runs a thread that has used so much CPU time, and sleeps."""
    spent, end = threading.Event(), threading.Event()

    def work() -> None:
        until = time.thread_time() + cpu_s
        while time.thread_time() < until:
            pass
        spent.set()
        end.wait()

    thread = threading.Thread(target=work, name=name)
    thread.start()
    spent.wait()
    try:
        yield
    finally:
        end.set()
        thread.join()


def test_only_living_threads_of_this_package_count():
    before_s = own_cpu_s() or 0.0
    with thread_that_spent(0.2, "dramatiq_diag.test"), thread_that_spent(0.3, "work"):
        assert 0.2 <= (own_cpu_s() or 0.0) - before_s < 0.3
    assert (own_cpu_s() or 0.0) - before_s < 0.2
