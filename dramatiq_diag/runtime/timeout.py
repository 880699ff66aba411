"""Makes a call that may hang, and abandons it after a time-out."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..errors import StepTimeoutError

#: Makes a call on a thread that no interrupt strikes.
Handover = Callable[[Callable[[], object]], None]


class _Once:
    """Something that one of two threads does: `list.pop` is atomic, and no interrupt leaves a lock held."""

    def __init__(self) -> None:
        self._free = [True]

    def take(self) -> bool:
        """Returns: True for the first that asks."""
        try:
            return self._free.pop()
        except IndexError:
            return False

    @property
    def is_taken(self) -> bool:
        """Whether one of them has asked."""
        return not self._free


def call_with_timeout(
    call: Callable[[], None],
    timeout_s: float,
    hand_over: Handover,
    *,
    undo: Callable[[], None] | None = None,
) -> None:
    """Makes a call on a thread of its own, and waits for it.

    The threads of tasks do this, so it waits for a plain lock; see `runtime.interrupts`. Another thread starts the new
    one: CPython registers a new thread under the id of its starter for a moment, and an interrupt would go to it.

    Parameters:
      call: The call.
      timeout_s: Seconds to wait at most.
      hand_over: Makes a call on the thread that starts the new one.
      undo: Undoes the call if it returns after it was abandoned. With it the call is not made at all if it has not
        begun by then; without it, it is made however late.

    Raises:
      StepTimeoutError: When the call has not returned after *timeout_s* seconds.
      BaseException: The error of the call.
    """
    raised: list[BaseException] = []
    done = threading.Lock()
    beginning, ending = _Once(), _Once()
    over: list[bool] = []

    def start() -> None:
        try:
            threading.Thread(target=make, name="dramatiq_diag.bounded", daemon=True).start()
        except RuntimeError as error:  # There are too many threads.
            raised.append(error)
            done.release()

    def make() -> None:
        if not beginning.take():
            return
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for.
            raised.append(error)
        if ending.take():
            done.release()
        elif undo is not None:
            undo()
        over.append(True)

    done.acquire()
    hand_over(start)
    is_done = done.acquire(timeout=timeout_s)
    if not is_done and undo is not None and beginning.take():
        text = f"It was not begun within {timeout_s:g} s, as the process was busy, and was left out."
        raise StepTimeoutError(text, has_begun=False)
    if not is_done and not ending.take():
        done.acquire()  # It returned just now, and releases the lock.
        is_done = True
    if raised:
        raise raised[0]
    if not is_done:
        text = f"It did not return within {timeout_s:g} s and was abandoned."
        raise StepTimeoutError(text, is_over=lambda: bool(over), has_begun=beginning.is_taken)
