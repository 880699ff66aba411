"""Calls functions in processes that tasks fork: such a process lacks our threads, and must not rely on them."""

from __future__ import annotations

import os
from collections.abc import Callable

_in_child: list[Callable[[], None]] = []
_registered = False


def call_in_child(function: Callable[[], None]) -> None:
    """Calls a function in each process that is forked from now on, until `forget`."""
    global _registered
    _in_child.append(function)
    if not _registered:
        _registered = True
        os.register_at_fork(after_in_child=_call_all)


def forget(function: Callable[[], None]) -> None:
    """Ends `call_in_child`; may be called again."""
    if function in _in_child:
        _in_child.remove(function)


def _call_all() -> None:
    for function in _in_child:
        function()
