"""Remembers for how long consecutive looks have seen the same."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import Any


class SameTimes:
    """Compares each look with the one before.

    Parameters:
      clock: Gives seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._before: dict[Hashable, tuple[Any, float]] = {}
        self._now: dict[Hashable, tuple[Any, float]] = {}

    def begin(self) -> None:
        """Begins a look; what the one before has not seen is forgotten."""
        self._before, self._now = self._now, {}

    def same_for_s(self, key: Hashable, seen: Any) -> float:
        """Returns: For how long the same has been seen, in seconds; 0.0 if it differs from the look before.

        Parameters:
          key: What is looked at.
          seen: What is seen of it; equal if it is the same.
        """
        now = self._clock()
        known, since = self._before.get(key, (None, now))
        if known != seen:
            since = now
        self._now[key] = (seen, since)
        return now - since


class Identity:
    """Is equal for the same object alone, also after the object is gone, and keeps no object alive.

    Parameters:
      value: An object. One that has no weak references is compared by its address.
    """

    def __init__(self, value: Any) -> None:
        self._address = id(value)
        try:
            self._reference: Any = weakref.ref(value)
        except TypeError:
            self._reference = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Identity) or self._address != other._address:
            return False
        if self._reference is None or other._reference is None:
            return self._reference is other._reference
        return self._reference() is not None and self._reference() is other._reference()

    def __hash__(self) -> int:
        return self._address
