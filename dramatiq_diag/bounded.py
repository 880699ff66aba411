"""A call that may hang, and is not to hold up who makes it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .errors import HungError


def call_bounded(call: Callable[[], None], timeout_s: float) -> None:
    """Makes a call on a thread of its own, and waits for it; a call that hangs is left to itself.

    Raises:
      HungError: When it has not returned after *timeout_s* seconds.
      BaseException: What the call raised.
    """
    raised: list[BaseException] = []

    def make() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for.
            raised.append(error)

    thread = threading.Thread(target=make, name="dramatiq_diag.bounded", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if raised:
        raise raised[0]
    if thread.is_alive():
        raise HungError(f"It did not return within {timeout_s:g} s and was abandoned.")
