"""Shortens the interpreter's switch interval while a thread of ours runs beside tasks and waits for the GIL."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Python's own default of `sys.getswitchinterval`, in seconds.
_DEFAULT_S = 0.005


class SwitchInterval:
    """Keeps `sys.setswitchinterval` as short as its users want, unless the application chose an interval."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: dict[object, float] = {}
        self._set_s: float | None = None
        "The interval that was set here; None while it is the application's."

    @contextmanager
    def short(self, seconds: float) -> Iterator[None]:
        """Keeps the interval at *seconds*, or shorter if another user wants that."""
        holder = object()
        self.want(holder, seconds)
        try:
            yield
        finally:
            self.want(holder, None)

    def want(self, holder: object, seconds: float | None) -> None:
        """Sets the interval that one user wants; None if it wants none any more."""
        with self._lock:
            if seconds is None:
                self._wanted.pop(holder, None)
            else:
                self._wanted[holder] = seconds
            if self._is_ours():
                self._set(min(self._wanted.values(), default=None))

    def end_in_child(self) -> None:
        """Restores Python's own interval in a forked process, which does not have the threads that want it short."""
        self._lock = threading.Lock()
        self._wanted.clear()
        if self._is_ours():
            self._set(None)

    def _is_ours(self) -> bool:
        """Returns: True if the interval is the one set here, or Python's default; False if the application chose it."""
        expected_s = _DEFAULT_S if self._set_s is None else self._set_s
        return abs(sys.getswitchinterval() - expected_s) < 1e-6  # It is kept in whole microseconds.

    def _set(self, seconds: float | None) -> None:
        sys.setswitchinterval(_DEFAULT_S if seconds is None else seconds)
        self._set_s = seconds
