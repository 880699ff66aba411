"""Which of several threads in the GIL's futex waited for it, by the CPU time that they used of late."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue

import pytest

from dramatiq_diag.collectors.accounting.calls import GIL, UNKNOWN
from dramatiq_diag.collectors.accounting.gil_chances import GilChances


class Burner:
    """A thread that uses CPU time when it is asked to."""

    def __init__(self) -> None:
        self.asked: SimpleQueue[float] = SimpleQueue()
        self._done: SimpleQueue[None] = SimpleQueue()
        self.thread = threading.Thread(target=self._run)

    @property
    def native_id(self) -> int:
        assert self.thread.native_id is not None
        return self.thread.native_id

    def burn(self, cpu_s: float) -> None:
        self.asked.put(cpu_s)
        self._done.get()

    def _run(self) -> None:
        while (cpu_s := self.asked.get()) > 0.0:
            until = time.thread_time() + cpu_s
            while time.thread_time() < until:
                pass
            self._done.put(None)


@contextmanager
def burners(count: int) -> Iterator[list[Burner]]:
    made = [Burner() for _ in range(count)]
    for burner in made:
        burner.thread.start()
    try:
        yield made
    finally:
        for burner in made:
            burner.asked.put(0.0)
            burner.thread.join()


def not_in_it(_native_id: int) -> object:
    return UNKNOWN


def in_it(_native_id: int) -> object:
    return GIL


def read(burned: dict[Burner, float]) -> GilChances:
    """Returns: What is known after these threads have used so many seconds."""
    chances, ids = GilChances(), {burner.native_id for burner in burned} | {threading.get_native_id()}
    chances.read_clocks(ids)
    for burner, cpu_s in burned.items():
        if cpu_s:
            burner.burn(cpu_s)
    chances.read_clocks(ids)
    return chances


def test_the_more_a_thread_used_the_less_likely_it_waited():
    with burners(3) as (much, little, none):
        chances = read({much: 0.15, little: 0.05, none: 0.0})
        found = chances.of({each.native_id: GIL for each in (much, little, none)}, not_in_it)
    assert found[much.native_id] == pytest.approx(0.25, abs=0.1)
    assert found[little.native_id] == pytest.approx(0.75, abs=0.1)
    assert found[none.native_id] > 0.99


def test_a_single_one_waited_if_another_used_the_time():
    with burners(2) as (busy, idle):
        chances = read({busy: 0.1, idle: 0.0})
        assert chances.of({idle.native_id: GIL}, not_in_it) == {idle.native_id: 1.0}
        assert chances.of({busy.native_id: GIL}, not_in_it) == {busy.native_id: 0.0}


def test_a_busy_thread_that_was_not_looked_at_may_have_had_it():
    with burners(2) as (seen, other):
        chances = read({seen: 0.1, other: 0.1})
        found = chances.of({seen.native_id: GIL}, in_it)
    assert found[seen.native_id] == pytest.approx(0.5, abs=0.15)


def test_nobody_asks_or_nothing_is_known():
    assert GilChances().of({1: UNKNOWN}, in_it) == {}
    assert GilChances().of({1: GIL, 2: GIL}, in_it) == {1: 1.0, 2: 1.0}
