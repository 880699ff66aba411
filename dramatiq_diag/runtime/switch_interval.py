"""How soon a thread that waits for the GIL gets it, while a thread of ours runs beside the tasks."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Python's own default of `sys.getswitchinterval`, in seconds.
_DEFAULT_S = 0.005


class SwitchInterval:
    """Shortens `sys.setswitchinterval` while anyone wants it short; the application's own choice is left alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: dict[object, float] = {}
        self._set_s: float | None = None
        "What we set; None while the interval is the application's."

    @contextmanager
    def short(self, seconds: float) -> Iterator[None]:
        """Keeps the interval at *seconds*, or shorter where someone else wants that."""
        holder = object()
        self.want(holder, seconds)
        try:
            yield
        finally:
            self.want(holder, None)

    def want(self, holder: object, seconds: float | None) -> None:
        """Changes what one holder wants; None to want nothing any more."""
        with self._lock:
            if seconds is None:
                self._wanted.pop(holder, None)
            else:
                self._wanted[holder] = seconds
            if self._is_ours():
                self._set(min(self._wanted.values(), default=None))

    def end_in_child(self) -> None:
        """Gives a forked process Python's own interval back: the threads that want it short are not in it."""
        self._lock = threading.Lock()
        self._wanted.clear()
        if self._is_ours():
            self._set(None)

    def _is_ours(self) -> bool:
        """Returns: Whether the interval is what we set, or Python's default where we set none."""
        expected_s = _DEFAULT_S if self._set_s is None else self._set_s
        return abs(sys.getswitchinterval() - expected_s) < 1e-6  # It is kept in whole microseconds.

    def _set(self, seconds: float | None) -> None:
        sys.setswitchinterval(_DEFAULT_S if seconds is None else seconds)
        self._set_s = seconds
