"""Whose is the memory that a thread has touched: that of its run, of one of several coroutines, or of nobody known."""

from __future__ import annotations

import uuid

from dramatiq_diag.runtime.thread_faults import ThreadFaults
from dramatiq_diag.worker.touched_memory import Part, TouchedMemory

ONE, TWO = uuid.uuid4(), uuid.uuid4()


class Faults(ThreadFaults):
    """Counts that a test sets."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: dict[int, int] = {}
        self.others = 0

    def thread_bytes(self, native_id: int) -> int | None:
        return self.threads.get(native_id)

    def process_bytes(self) -> int | None:
        return sum(self.threads.values()) + self.others


def test_what_a_thread_touches_while_it_executes_a_run_is_the_runs():
    faults = Faults()
    memory = TouchedMemory(faults)
    faults.threads = {11: 500, 12: 70}
    memory.look({11: [ONE], 12: [TWO]})
    faults.threads = {11: 900, 12: 75}
    faults.others = 30

    touched = memory.look({11: [ONE], 12: [TWO]})

    assert touched == {ONE: 400, TWO: 5, Part.SHARED: 0, Part.OTHER: 30}
    assert memory.bytes_of(ONE) == 400


def test_it_counts_from_the_moment_when_a_run_was_met():
    faults = Faults()
    memory = TouchedMemory(faults)
    faults.threads = {11: 500}
    memory.meet(ONE, 11)
    faults.threads = {11: 600}
    assert ONE in memory
    memory.meet(ONE, 11)

    assert memory.look({11: [ONE]})[ONE] == 100


def test_the_next_run_of_a_thread_has_nothing_of_the_one_before():
    faults = Faults()
    memory = TouchedMemory(faults)
    faults.threads = {11: 0}
    memory.look({11: [ONE]})
    faults.threads = {11: 800}

    touched = memory.look({11: [TWO]})

    assert touched == {TWO: 0, Part.SHARED: 0, Part.OTHER: 800}
    assert memory.bytes_of(ONE) is None


def test_of_several_coroutines_the_one_that_is_executed_has_touched_it():
    faults = Faults()
    memory = TouchedMemory(faults)
    faults.threads = {20: 0}
    memory.look({20: [ONE, TWO]})
    faults.threads = {20: 100}
    memory.look({20: [ONE, TWO]}, executed=[TWO])
    faults.threads = {20: 107}

    touched = memory.look({20: [ONE, TWO]})

    assert touched == {ONE: 0, TWO: 100, Part.SHARED: 7, Part.OTHER: 0}
    assert memory.shares_thread(ONE)
    assert memory.bytes_of(TWO) is None  # It was only seen at moments.


def test_a_coroutine_that_is_alone_on_its_loop_has_touched_all():
    faults = Faults()
    memory = TouchedMemory(faults)
    faults.threads = {20: 0}
    memory.look({20: [ONE]})
    faults.threads = {20: 100}

    assert memory.look({20: [ONE]})[ONE] == 100
    assert (memory.bytes_of(ONE), memory.shares_thread(ONE)) == (100, False)

    # And beside an undiagnosed one it cannot be told
    memory.look({20: [ONE, Part.OTHER]})
    assert memory.bytes_of(ONE) is None


def test_a_thread_that_has_ended_costs_itself_alone():
    faults = Faults()
    memory = TouchedMemory(faults)
    faults.threads = {11: 5}
    memory.look({11: [ONE], 12: [TWO]})
    faults.threads = {11: 6}

    assert memory.look({11: [ONE], 12: [TWO]})[ONE] == 1
    assert memory.bytes_of(TWO) is None


def test_nothing_is_left_of_runs_that_were_forgotten():
    faults = Faults()
    memory = TouchedMemory(faults)
    faults.threads = {11: 5}
    memory.look({11: [ONE]})
    memory.clear()

    assert ONE not in memory
    faults.threads = {11: 50}
    assert memory.look({11: [ONE]})[ONE] == 0
