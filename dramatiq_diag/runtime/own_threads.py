"""Knows the threads of this package by their names, and sums up their CPU time."""

from __future__ import annotations

import sys
import threading

from dramatiq.threading import is_gevent_active

from .thread_state import cpu_s


def is_own_thread(name: str) -> bool:
    """Returns: Whether a thread of this name is one of this package."""
    return name.startswith("dramatiq_diag.")


def own_cpu_s() -> float | None:
    """Returns: The CPU time in seconds of the threads of this package that live; None where none of it is known.

    Those that work all the time live as long as the worker. A thread of a single step, as a cleanup or a collector that
    may hang, counts until it ends. Under gevent all of them are one thread with the tasks.
    """
    if "gevent.monkey" in sys.modules and is_gevent_active():
        return None
    own = [thread.native_id for thread in threading.enumerate() if is_own_thread(thread.name)]
    spent = [cpu_s(native_id) for native_id in own if native_id is not None]
    known = [seconds for seconds in spent if seconds is not None]
    return sum(known) if known else None
