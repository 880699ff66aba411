"""Tells the profile hook of interrupts before they are raised, on CPython 3.11; see `ProfileHook.interrupting`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Any

from dramatiq.middleware.threading import raise_thread_exception

from ..errors import UnavailableError
from .profile_hook import ProfileHook

#: What Dramatiq's `raise_thread_exception` calls. That one is imported by name in the modules that use it (time limits,
#: shutdown notifications, dramatiq-abort), so this is the only place to stand in front of all of them.
_CALLED = "_raise_thread_exception_cpython"


class _Raise:
    """Stands in front of Dramatiq's function, for the hooks of all workers of the process."""

    def __init__(self, original: Any) -> None:
        self.original = original
        self.hooks: list[ProfileHook] = []

    def __call__(self, thread_id: int, exception: Any) -> None:
        with ExitStack() as stack:
            for hook in tuple(self.hooks):
                stack.enter_context(hook.interrupting(thread_id))
            self.original(thread_id, exception)


def watch_interrupts(hook: ProfileHook) -> None:
    """Tells the hook of each interrupt from now on; does nothing on another Python than 3.11, or for the second time.

    Raises:
      UnavailableError: Where Dramatiq raises interrupts in a way that is not known here.
    """
    if sys.version_info >= (3, 12):
        return
    namespace = raise_thread_exception.__globals__
    present = namespace.get(_CALLED)
    if present is None:
        raise UnavailableError(
            "On CPython 3.11 this would stop all threads beside interrupts, and this version of Dramatiq does not let "
            "it end before them; use Python 3.12 or newer."
        )
    if not isinstance(present, _Raise):
        present = namespace[_CALLED] = _Raise(present)
    if hook not in present.hooks:
        present.hooks.append(hook)


def forget_interrupts(hook: ProfileHook) -> None:
    """Tells the hook of no more interrupts, and leaves Dramatiq as it was after the last hook."""
    namespace = raise_thread_exception.__globals__
    present = namespace.get(_CALLED)
    if not isinstance(present, _Raise) or hook not in present.hooks:
        return
    present.hooks.remove(hook)
    if not present.hooks:
        namespace[_CALLED] = present.original
