"""Time as a test wants it: seconds that it sets, CPU time that it spends, and a collection."""

from __future__ import annotations

import gc
import threading
import time


class Clock:
    """A clock that a test sets."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def burn(cpu_s: float) -> None:
    """Uses CPU time: where a thread has to wait for a processor, all parts of a task last longer in proportion."""
    ends = time.thread_time() + cpu_s
    while time.thread_time() < ends:
        pass


def collect_here() -> None:
    """Collects garbage on this thread. `gc.collect` does nothing while another thread is in the middle of it."""
    own, collected = threading.get_ident(), list[int]()
    gc.callbacks.append(note := lambda *_: collected.append(threading.get_ident()))
    while own not in collected:
        gc.collect()
        time.sleep(0)
    gc.callbacks.remove(note)
