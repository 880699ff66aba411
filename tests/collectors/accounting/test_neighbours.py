"""The CPU time of the other tasks of the process, by fake clocks."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from dramatiq_diag.collectors.accounting.neighbours import MAX_LISTED, Neighbours, bounded
from dramatiq_diag.runtime.coroutine_steps import CoroutineSteps


def message(task_id: str) -> Any:
    return SimpleNamespace(message_id=task_id, actor_name=f"actor of {task_id}")


class Process:
    """Threads 1 to 3, with the ids 101 to 103 in the kernel; the first one has the run that asks."""

    def __init__(self) -> None:
        self.messages: dict[int, tuple[Any, float]] = {1: (message("own"), 0)}
        self.measured: dict[int, Any] = {}
        self.cpu_s = {101: 10.0, 102: 20.0, 103: 30.0}
        self.loop_cpu_s = 50.0
        self.neighbours = Neighbours(
            self.messages,
            self.measured,
            lambda: {1: 101, 2: 102, 3: 103},
            lambda: self.loop_cpu_s,
            lambda native_id: self.cpu_s.get(native_id),
        )
        self.neighbours.begin()
        self.neighbours.look()

    def listed(self, before: Any, own: int = 1) -> list[tuple[str, float]]:
        found = self.neighbours.listed(before, own)
        assert all(other["actor_name"] == f"actor of {other['task_id']}" for other in found)
        assert all(other["loop_ms"] is None for other in found)
        return [(other["task_id"], other["cpu_ms"]) for other in found]


def test_tasks_are_charged_with_what_their_threads_used_meanwhile() -> None:
    process = Process()
    for thread_id, name in ((2, "a"), (3, "b")):
        process.messages[thread_id] = message(name), thread_id
    process.cpu_s[102] += 5.0
    process.neighbours.look()

    # From here on
    before = process.neighbours.mark()
    process.cpu_s.update({101: 11.0, 102: 25.25, 103: 30.75})
    process.neighbours.look()
    process.cpu_s[103] += 0.25

    assert process.listed(before) == [("b", 1000.0), ("a", 250.0)]


def test_a_task_that_ended_meanwhile_is_listed_and_the_next_one_on_its_thread_too() -> None:
    process = Process()
    process.messages[2] = message("first"), 1
    before = process.neighbours.mark()
    process.neighbours.look()
    process.cpu_s[102] += 1.0
    process.neighbours.look()
    process.messages[2] = message("second"), 2
    process.cpu_s[102] += 0.5
    process.neighbours.look()
    del process.messages[2]

    assert process.listed(before) == [("first", 1000.0), ("second", 500.0)]

    # A run that begins now has nothing of them.
    assert process.listed(process.neighbours.mark()) == []
    process.neighbours.look()
    assert process.listed(process.neighbours.mark()) == []


def test_the_time_between_two_accounted_periods_hides_no_neighbour() -> None:
    process = Process()
    process.neighbours.rest()
    process.messages[2] = message("a"), 1
    process.cpu_s[102] += 10.0  # While nobody looks.

    before = process.neighbours.mark()
    process.neighbours.begin()
    process.neighbours.look()
    process.cpu_s[102] += 3.0
    process.neighbours.look()

    assert process.listed(before) == [("a", 3000.0)]


def test_what_a_task_used_after_the_last_look_counts_unless_its_thread_has_another_task() -> None:
    process = Process()
    process.messages.update({2: (message("ends"), 1), 3: (message("is followed"), 1)})
    process.neighbours.look()
    before = process.neighbours.mark()
    process.cpu_s.update({102: 21.0, 103: 31.0})
    del process.messages[2]
    process.messages[3] = message("follows"), 2

    expected = [("ends", 1000.0), ("follows", 1000.0)]
    assert sorted(process.listed(before)) == expected

    # The next look finds the run alone
    del process.messages[3]
    process.neighbours.look()
    process.cpu_s[102] += 7.0
    assert ("ends", 1000.0) in process.listed(before)


class Steps:
    """A coroutine whose steps use the CPU as the test says.

    Parameters:
      process: The process.
      thread_id: The worker thread that waits for it.
    """

    def __init__(self, process: Process, thread_id: int) -> None:
        self.process, self.thread_id, self.processed = process, thread_id, process.messages[thread_id]
        process.measured[thread_id] = self
        self.cpu_s = self.steps_s = 0.0
        self.begun_s: float | None = None
        "The CPU time of the loop's thread at the beginning of a step."

    def steps_until(self, now_s: float, thread_cpu_s: Callable[[], float | None]) -> CoroutineSteps:
        under_way_s = 0.0 if self.begun_s is None else (thread_cpu_s() or 0.0) - self.begun_s
        return CoroutineSteps(self.cpu_s + under_way_s, self.steps_s, None, None)

    def end(self) -> None:
        """Ends the run, whose message is no longer among those that are processed."""
        del self.process.messages[self.thread_id]
        ended: Any = self
        self.process.neighbours.note_end(self.thread_id, self.processed, ended)
        del self.process.measured[self.thread_id]


@pytest.mark.parametrize("looks", [0, 1, 2])
@pytest.mark.parametrize("is_seen", [True, False])
def test_the_steps_of_a_coroutine_count_for_its_task_up_to_its_end(looks: int, is_seen: bool) -> None:
    process = Process()
    before = process.neighbours.mark()
    process.messages[2] = message("async"), 1
    steps = Steps(process, 2)
    if is_seen:
        process.neighbours.look()
    steps.cpu_s = 0.75
    process.cpu_s[102] += 0.2  # The thread that waits for it.
    steps.end()
    for _ in range(looks):
        process.neighbours.look()
    assert process.listed(before) == [("async", 750.0)]
    assert process.listed(process.neighbours.mark()) == []


def test_a_step_that_is_under_way_counts_from_the_beginning_of_the_run_on() -> None:
    process = Process()
    process.messages[2] = message("async"), 1
    steps = Steps(process, 2)
    steps.cpu_s, steps.begun_s = 1.0, process.loop_cpu_s
    process.loop_cpu_s += 0.5
    before = process.neighbours.mark()
    process.neighbours.look()
    process.loop_cpu_s += 0.25

    assert process.listed(before) == [("async", 250.0)]


def test_a_coroutine_that_is_not_handed_over_yet_has_used_nothing() -> None:
    process = Process()
    process.messages[2] = message("async"), 1
    process.cpu_s[102] += 1.0  # What its thread did before.
    before = process.neighbours.mark()
    process.measured[2] = None
    process.neighbours.look()
    process.cpu_s[102] += 1.0
    process.neighbours.look()
    assert process.listed(before) == []

    Steps(process, 2).cpu_s = 0.5
    assert process.listed(before) == [("async", 500.0)]


def test_nothing_is_noted_of_coroutines_that_end_between_accounted_periods() -> None:
    process = Process()
    process.neighbours.rest()
    process.messages[2] = message("async"), 1
    steps = Steps(process, 2)
    steps.cpu_s = 1.0
    before = process.neighbours.mark()
    steps.end()
    process.neighbours.begin()

    assert process.listed(before) == []


def test_for_how_long_each_coroutine_kept_the_loop_is_counted_from_look_to_look() -> None:
    process = Process()
    process.messages.update({2: (message("a"), 1), 3: (message("b"), 1)})
    a, b = Steps(process, 2), Steps(process, 3)
    a.steps_s = 1.0
    process.neighbours.kept()
    assert process.neighbours.kept() == {}

    a.steps_s, b.steps_s = 1.5, 0.00005
    assert process.neighbours.kept_since() == {(2, 1): 0.5}
    assert process.neighbours.kept() == {(2, 1): 0.5}
    b.steps_s = 0.00015  # What was too little before counts, too.
    assert process.neighbours.kept() == {(3, 1): 0.00015}

    # One that has ended, and one that nothing was seen of.
    a.steps_s = 1.75
    a.end()
    process.messages[2] = message("c"), 2
    c = Steps(process, 2)
    c.steps_s = 0.25
    c.end()
    assert process.neighbours.kept() == {(2, 1): 0.25, (2, 2): 0.25}
    assert process.neighbours.kept() == {}
    process.neighbours.look()
    assert process.neighbours.kept() == {}


def test_the_neighbour_that_kept_the_loop_for_the_longest_time_comes_first() -> None:
    process = Process()
    before = process.neighbours.mark()
    for thread_id, name in ((2, "blocks"), (3, "computes")):
        process.messages[thread_id] = message(name), 1
        Steps(process, thread_id)
    process.measured[3].cpu_s = 2.0
    kept = {(2, 1): 3.0, (3, 1): 1.0}

    listed = process.neighbours.listed(before, 1, kept)
    assert [(other["task_id"], other["cpu_ms"], other["loop_ms"]) for other in listed] == [
        ("blocks", 0.0, 3000.0),
        ("computes", 2000.0, 1000.0),
    ]
    assert process.listed(before) == [("computes", 2000.0)]
    assert [other["loop_ms"] for other in bounded(listed, 1000.0)] == [750.0, 250.0]
    assert bounded(listed, 5000.0) == listed
    assert [other["task_id"] for other in bounded(listed, 0.0)] == ["computes"]


def test_what_a_thread_computes_does_not_keep_the_loop() -> None:
    process = Process()
    before = process.neighbours.mark()
    process.messages[2] = message("thread"), 1
    process.neighbours.look()
    process.cpu_s[102] += 1.0

    (other,) = process.neighbours.listed(before, 1, {})
    assert (other["cpu_ms"], other["loop_ms"]) == (1000.0, None)


def test_a_thread_that_has_ended_and_tasks_that_used_nothing_are_no_neighbours() -> None:
    process = Process()
    for thread_id, name in ((2, "gone"), (3, "idle"), (4, "unknown")):
        process.messages[thread_id] = message(name), 1
    before = process.neighbours.mark()
    del process.cpu_s[102]
    process.neighbours.look()

    assert process.listed(before) == []


def test_the_list_has_a_bound() -> None:
    process = Process()
    before = process.neighbours.mark()
    for number in range(MAX_LISTED + 5):
        process.messages[2] = message(str(number)), number
        process.cpu_s[102] += 1.0
        process.neighbours.look()

    assert len(process.listed(before)) == MAX_LISTED
    assert len(process.neighbours.mark().used) == 2


def test_of_too_many_tasks_that_ended_the_latest_are_remembered() -> None:
    process = Process()
    before = process.neighbours.mark()
    process.messages[2] = message("first"), -1
    process.cpu_s[102] += 1000.0
    process.neighbours.look()
    for number in range(10_010):
        process.messages[2] = message(str(number)), number
        process.cpu_s[102] += number
        process.neighbours.look()
    middle = process.neighbours.mark()
    process.messages[2] = message("last"), 100_000
    process.cpu_s[102] += 1.0

    assert [name for name, _ in process.listed(before)[:2]] == ["10009", "10008"]
    assert process.listed(middle) == [("last", 1000.0)]
