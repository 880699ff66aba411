"""What a process that a task forks does first: it is without our threads, and must not go on as if they were there."""

from __future__ import annotations

import os
from collections.abc import Callable

_in_child: list[Callable[[], None]] = []
_registered = False


def call_in_child(function: Callable[[], None]) -> None:
    """Calls it in each process that is forked from now on, until `forget`; a worker does this when it boots."""
    global _registered
    _in_child.append(function)
    if not _registered:
        _registered = True
        os.register_at_fork(after_in_child=_call_all)


def forget(function: Callable[[], None]) -> None:
    """Calls it no more; it may have been forgotten before."""
    if function in _in_child:
        _in_child.remove(function)


def _call_all() -> None:
    for function in _in_child:
        function()
