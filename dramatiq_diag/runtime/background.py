"""Runs a loop on a daemon thread: wait for work, take a step, back off after a fault, end when asked."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from .loggers import get_logger


class BackgroundThread:
    """A daemon thread that takes a step when it is woken, or by itself after a while.

    Parameters:
      name: The last part of the thread's name.
      step: Does some of the work. It returns the seconds until the thread takes the next step if nothing wakes it.
      finish: Runs last on the thread, with the moment until which `stop` waits, by `time.monotonic`.
      backoff_s: The shortest and the longest pause after a fault, in seconds; each pause is twice as long as the last.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], float],
        finish: Callable[[float], None],
        *,
        backoff_s: tuple[float, float] = (0.25, 10.0),
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self._step = step
        self._finish = finish
        self._backoff_s = backoff_s
        self._pause_s = backoff_s[0]
        self._not_before = 0.0
        "No step is taken before this moment, by `time.monotonic`, not even when the thread is woken."
        self._stop_at: float | None = None
        # Not an event: an interrupt of Dramatiq's in `Event.set`, on a task's thread, leaves its lock held for ever.
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"dramatiq_diag.{name}", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Lets the thread take a step soon. Any thread may call it, also a task's."""
        self._wakes.put(None)

    def stop(self, timeout_s: float, grace_s: float = 0.0) -> bool:
        """Lets the thread finish within *timeout_s* seconds, and waits for its end *grace_s* seconds longer.

        Returns:
          Whether it has ended; False if it hangs in a step, and may still go on.
        """
        self._stop_at = time.monotonic() + timeout_s
        self.wake()
        self._thread.join(timeout_s + grace_s)
        return not self._thread.is_alive()

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called. A step that takes long asks for it, and ends early."""
        return self._stop_at is not None

    @property
    def pause_left_s(self) -> float:
        """Seconds for which no step is taken, because of a fault; 0 without one."""
        return max(self._not_before - time.monotonic(), 0.0)

    def hold(self, seconds: float) -> None:
        """Takes no step for so many seconds from now; 0 ends such a pause."""
        self._not_before = time.monotonic() + seconds
        self.wake()

    def back_off(self) -> None:
        """Takes no step for a while, after a fault: each time twice as long, until `recovered`."""
        self._not_before = time.monotonic() + self._pause_s
        self._pause_s = min(self._pause_s * 2, self._backoff_s[1])

    def recovered(self) -> None:
        """Makes the pause after the next fault the shortest again."""
        self._pause_s = self._backoff_s[0]

    def _run(self) -> None:
        wait_s = 0.0
        while self._stop_at is None:
            try:
                self._wait(wait_s)
                wait_s = 0.0 if self._stop_at is not None else self._step()
            except BaseException:  # A library in Rust that panics raises one that is no Exception.
                self.logger.exception("%s met an unexpected error and goes on.", self._thread.name)
                self.back_off()
        try:
            self._finish(self._stop_at)
        except BaseException:
            self.logger.exception("%s met an unexpected error at its end.", self._thread.name)

    def _wait(self, wait_s: float) -> None:
        """Waits until it is time for a step, the thread is woken or it is stopped; a pause is waited out."""
        due = time.monotonic() + wait_s
        while self._stop_at is None:
            timeout_s = max(due, self._not_before) - time.monotonic()
            if timeout_s <= 0:
                break
            with suppress(queue.Empty):
                self._wakes.get(timeout=timeout_s)
                due = 0.0
        with suppress(queue.Empty):
            while True:
                self._wakes.get_nowait()
