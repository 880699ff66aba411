"""Reads the stack of a greenlet that does not run, as the tasks of a worker under gevent are."""

from __future__ import annotations

import gc
import sys
from typing import Any

from .frames import Look, Place


def greenlet_places(ident: int) -> list[Place]:
    """Returns: The places of a greenlet, the innermost first; empty if there is no such greenlet, or it runs.

    Parameters:
      ident: Its id. Under gevent `threading.get_ident` gives it as the id of a thread.

    Note:
      This looks through all objects, which takes milliseconds. Greenlets of one thread cannot run meanwhile.
    """
    module = sys.modules.get("greenlet")
    if module is None:
        return []
    found = next((each for each in gc.get_objects() if id(each) == ident and _is_greenlet(each, module)), None)
    if found is None:
        return []
    look = Look()
    places = look.greenlet(found)
    look.take()
    return places


def _is_greenlet(value: Any, module: Any) -> bool:
    return issubclass(type(value), module.greenlet)
