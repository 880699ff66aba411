"""Interrupts of Dramatiq's: the rules for code on a task's thread, a helper, and the notice before each interrupt.

An interrupt (a time limit, an abort, a shutdown) is an asynchronous exception that another thread raises in the task's
thread. It may strike between any two instructions, in our hooks as well. So code on a task's thread keeps three rules:

1. It takes no lock but `threading.Lock`, and passes things on through a `deque` or a `queue.SimpleQueue`: these are
   written in C. `threading.Condition`, `threading.Event`, `Thread.start`, `Thread.join` and the locks of `logging` are
   Python code, and an interrupt in them leaves a lock held for ever.
2. Each step is idempotent. Dramatiq calls our hook again after an interrupt, and the hook repeats the end of the run
   until it is complete. So a step is registered before it begins, its end undoes what it finds, and the note that it
   is done comes last.
3. Where it matters how far a call into another package came, `NotedCall` makes the call.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from operator import call
from typing import Any

from dramatiq.middleware.threading import raise_thread_exception

from ..errors import UnavailableError
from .profile_hook import ProfileHook

#: The function that Dramatiq's `raise_thread_exception` calls. The modules that use the latter (time limits, shutdown
#: notifications, dramatiq-abort) import it by name, so this is the only function that can be wrapped for all of them.
_CALLED = "_raise_thread_exception_cpython"


class NotedCall:
    """A call that notes its begin and its end. No interrupt can come between the call and its notes, as all is C code.

    Parameters:
      function: The function.
      following: Functions that are called right after it, if it has returned.
    """

    def __init__(self, function: Callable[[], object], *following: Callable[[], object]) -> None:
        functions: tuple[Callable[[], object], ...] = (int, function, *following)
        self._notes: list[object] = []
        self.make: Callable[[], None] = partial(self._notes.extend, map(call, functions))
        "Makes the call, once. It adds no Python frame to the stack."

    @property
    def has_begun(self) -> bool:
        """Whether the function was called, even if an exception ended it."""
        return len(self._notes) > 0

    @property
    def has_returned(self) -> bool:
        """Whether the function has returned."""
        return len(self._notes) > 1


class _Raise:
    """Wraps Dramatiq's function, for the hooks of all workers of the process."""

    def __init__(self, original: Any) -> None:
        self.original = original
        self.hooks: dict[ProfileHook, Mapping[int, object]] = {}

    def __call__(self, thread_id: int, exception: Any) -> None:
        watching = tuple(self.hooks.items())
        interrupted = [messages.get(thread_id) for _, messages in watching]
        with ExitStack() as stack:
            for hook, _ in watching:
                stack.enter_context(hook.interrupting(thread_id))
            # To end a measurement takes time. Meanwhile the task may have ended, and its thread may have the next one.
            now = [messages.get(thread_id) for _, messages in watching]
            if all(before is None or before is after for before, after in zip(interrupted, now, strict=True)):
                self.original(thread_id, exception)


def watch_interrupts(hook: ProfileHook, messages: Mapping[int, object]) -> None:
    """Tells the hook of each interrupt from now on, on CPython 3.11 alone; see `ProfileHook.interrupting`.

    Parameters:
      hook: The hook.
      messages: Thread id -> what it executes. An interrupt of a task that ended meanwhile is dropped.

    Raises:
      UnavailableError: When Dramatiq raises interrupts in a way that is not known here.
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
    present.hooks[hook] = messages


def forget_interrupts(hook: ProfileHook) -> None:
    """Ends `watch_interrupts`; after the last hook Dramatiq is as it was."""
    namespace = raise_thread_exception.__globals__
    present = namespace.get(_CALLED)
    if not isinstance(present, _Raise) or hook not in present.hooks:
        return
    del present.hooks[hook]
    if not present.hooks:
        namespace[_CALLED] = present.original
