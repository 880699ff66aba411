"""How soon a thread that waits for the GIL gets it, while a thread of ours runs beside the tasks."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Python's own default of `sys.getswitchinterval`, in seconds.
_DEFAULT_S = 0.005

#: The interval meanwhile. The sampler waits for the running thread to give up the GIL, and the shorter that takes the
#: less it prefers places that give it up; a task that comes back from a system call waits for the publisher. It must
#: not be shorter than a sample takes: who gave up the GIL asks for it again after this long, whatever is set then.
SHORT_S = 0.0005


class SwitchInterval:
    """Shortens `sys.setswitchinterval` while anyone holds it short; the application's own choice is left alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._found_s: float | None = None

    @contextmanager
    def short(self) -> Iterator[None]:
        """Keeps the interval short."""
        with self._lock:
            self._holders += 1
            if self._holders == 1:
                self._shorten()
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if self._holders == 0:
                    self._restore()

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Lets this thread keep the GIL for as long as Python's default is; for one that keeps the interval short."""
        if self._found_s is None:
            yield
            return
        sys.setswitchinterval(_DEFAULT_S)
        try:
            yield
        finally:
            sys.setswitchinterval(SHORT_S)

    def _shorten(self) -> None:
        found_s = sys.getswitchinterval()
        if abs(found_s - _DEFAULT_S) < 1e-9:
            self._found_s = found_s
            sys.setswitchinterval(SHORT_S)

    def _restore(self) -> None:
        found_s, self._found_s = self._found_s, None
        if found_s is not None and abs(sys.getswitchinterval() - SHORT_S) < 1e-9:
            sys.setswitchinterval(found_s)
