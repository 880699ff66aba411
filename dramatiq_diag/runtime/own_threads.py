"""Sums up the CPU time of the threads of this package."""

from __future__ import annotations

import sys
import threading

from dramatiq.threading import is_gevent_active

from .thread_state import cpu_s

#: The names of all threads of this package begin with it.
_PREFIX = "dramatiq_diag."


def own_cpu_s() -> float | None:
    """Returns: The CPU time in seconds of the threads of this package that live; None where none of it is known.

    Those that work all the time live as long as the worker. A thread of a single step, as a cleanup or a collector that
    may hang, counts until it ends. Under gevent all of them are one thread with the tasks.
    """
    if "gevent.monkey" in sys.modules and is_gevent_active():
        return None
    own = [thread.native_id for thread in threading.enumerate() if thread.name.startswith(_PREFIX)]
    spent = [cpu_s(native_id) for native_id in own if native_id is not None]
    known = [seconds for seconds in spent if seconds is not None]
    return sum(known) if known else None
