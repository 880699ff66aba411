"""A call that may hang, and is not to hold up who makes it."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable

from .errors import HungError


def call_bounded(call: Callable[[], None], timeout_s: float) -> None:
    """Makes a call on a thread of its own, and waits for it; a call that hangs is left to itself.

    It runs on the threads of tasks, where an interrupt of Dramatiq's may strike after any call. `Thread.start` and
    `Thread.join` would wait in a `threading.Condition`, whose lock may then stay held: so another thread starts the
    thread, and a plain lock is waited for.

    Raises:
      HungError: When it has not returned after *timeout_s* seconds.
      BaseException: What the call raised.
    """
    raised: list[BaseException] = []
    done = threading.Lock()

    def guarded(step: Callable[[], None]) -> None:
        try:
            step()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for.
            raised.append(error)
            done.release()

    def make() -> None:
        call()
        done.release()

    done.acquire()
    thread = threading.Thread(target=guarded, args=(make,), name="dramatiq_diag.bounded", daemon=True)
    _thread.start_new_thread(guarded, (thread.start,))
    is_done = done.acquire(timeout=timeout_s)
    if raised:
        raise raised[0]
    if not is_done:
        raise HungError(f"It did not return within {timeout_s:g} s and was abandoned.")
