"""Chooses how much one transaction of a cleanup changes, so that no other writer waits for long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from ..runtime.gc_pause import GcPause
from ..store.database import WRITERS_TURN_S

#: How long a transaction is to take, in seconds. A writer waits for one, and in SQLite until it looks again.
_TARGET_S = 0.03

#: A batch has at least a quarter of the largest size, and at least 50. On a busy machine every transaction is slow,
#: however little it changes: smaller ones would only make the cleanup last.
_LEAST_PART = 4
_LEAST = 50

#: A batch is at most so many times as large as the one before: a single quick transaction says little.
_GROWTH = 1.25

_T = TypeVar("_T")


class Pace:
    """The size of batches. It follows from the time that the transactions before have taken.

    Parameters:
      most: The largest size.
      clock: Gives seconds.
      sleep: Waits for seconds.
    """

    def __init__(
        self,
        most: int,
        *,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._most = most
        self.size = self._least = max(min(most, _LEAST), most // _LEAST_PART)
        self._clock = clock
        self._sleep = sleep
        self._ended_s = 0.0

    def batched(self, items: Iterable[_T]) -> Iterator[list[_T]]:
        """Yields lists of items; each has the size that is right when it begins."""
        iterator = iter(items)
        while batch := list(islice(iterator, self.size)):
            yield batch

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Times a transaction, from its beginning until it is committed.

        Meanwhile the garbage collector does not run by itself: a full collection takes 0.1 s, and others wait for it.
        """
        started_s = self._clock()
        with GcPause():
            yield
        self._ended_s = self._clock()
        fitting = self.size * _TARGET_S / max(self._ended_s - started_s, 1e-6)
        self.size = round(max(self._least, min(fitting, self.size * _GROWTH, self._most)))

    def let_others_write(self) -> None:
        """Waits until other writers have tried again since the last transaction."""
        self._sleep(max(0.0, self._ended_s + WRITERS_TURN_S - self._clock()))
