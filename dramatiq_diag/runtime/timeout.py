"""Makes a call that may hang, and abandons it after a time-out."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..errors import StepTimeoutError

#: Makes a call on a thread that no interrupt strikes.
Handover = Callable[[Callable[[], object]], None]


def call_with_timeout(call: Callable[[], None], timeout_s: float, hand_over: Handover) -> None:
    """Makes a call on a thread of its own, and waits for it.

    The threads of tasks do this, so it waits for a plain lock; see `runtime.interrupts`. Another thread starts the new
    one: CPython registers a new thread under the id of its starter for a moment, and an interrupt would go to it.

    Parameters:
      call: The call.
      timeout_s: Seconds to wait at most.
      hand_over: Makes a call on the thread that starts the new one.

    Raises:
      StepTimeoutError: When the call has not returned after *timeout_s* seconds.
      BaseException: The error of the call.
    """
    raised: list[BaseException] = []
    done = threading.Lock()

    def start() -> None:
        try:
            threading.Thread(target=make, name="dramatiq_diag.bounded", daemon=True).start()
        except RuntimeError as error:  # There are too many threads.
            raised.append(error)
            done.release()

    def make() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for.
            raised.append(error)
        done.release()

    done.acquire()
    hand_over(start)
    is_done = done.acquire(timeout=timeout_s)
    if raised:
        raise raised[0]
    if not is_done:
        raise StepTimeoutError(
            f"It did not return within {timeout_s:g} s and was abandoned.", is_over=lambda: not done.locked()
        )
