"""What goes on beside the workers, again and again."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Recurring:
    """A thread that makes a call after each pause, until it is stopped; the last call is waited for.

    Parameters:
      call: What it does.
      pause_s: Gives the seconds until the next call.
    """

    def __init__(self, call: Callable[[], None], pause_s: Callable[[], float]) -> None:
        self._call = call
        self._pause_s = pause_s
        self._error: BaseException | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Raises: What a call failed with, which was the last one then."""
        self._stopping.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._stopping.wait(self._pause_s()):
                self._call()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for.
            self._error = error
