"""Keeps the garbage collector from running by itself while memray starts or stops, or others wait for a transaction.

memray goes through the threads of the interpreter and makes objects on the way, so the collector may run. Finalisers
that it calls (a file is closed, a thread is started) let another thread run. If that thread ends meanwhile, or needs
the lock that is held, the process crashes or hangs (python/cpython#106883, python/cpython#137400).
"""

from __future__ import annotations

import gc
import threading
from typing import ClassVar


class GcPause:
    """One user of the pause: `with pause`, or `begin` and `end`. The collector runs again after the last user.

    `begin` and `end` stand apart where Dramatiq's hook itself starts the Tracker in between; see `Recording.enter`.
    The object is made before it begins and may be ended twice, so that an interrupt at any point leaves nothing behind.
    """

    _lock: ClassVar = threading.Lock()
    _users: ClassVar[set[GcPause]] = set()
    _was_enabled: ClassVar = False

    def begin(self) -> None:
        """Stops the collector; where the application stopped it before, nothing changes."""
        with GcPause._lock:
            if not GcPause._users:
                GcPause._was_enabled = gc.isenabled()
            GcPause._users.add(self)  # First: an interrupt may come between any two lines, and `end` comes after it.
            gc.disable()

    def end(self) -> None:
        """Ends this use; may be called again."""
        with GcPause._lock:
            if self in GcPause._users:
                if GcPause._was_enabled and len(GcPause._users) == 1:
                    gc.enable()
                GcPause._users.discard(self)

    def __enter__(self) -> None:
        self.begin()

    def __exit__(self, *_: object) -> None:
        self.end()

    @staticmethod
    def end_in_child() -> None:
        """Ends all uses in a forked child: the threads that would have ended them are not in it."""
        GcPause._lock = threading.Lock()
        if GcPause._users and GcPause._was_enabled:
            gc.enable()
        GcPause._users.clear()
