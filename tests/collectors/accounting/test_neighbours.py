"""The CPU time of the other tasks of the process, by fake clocks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from dramatiq_diag.collectors.accounting.neighbours import MAX_LISTED, Neighbours


def message(task_id: str) -> Any:
    return SimpleNamespace(message_id=task_id, actor_name=f"actor of {task_id}")


class Process:
    """Threads 1 to 3, with the ids 101 to 103 in the kernel; the first one has the run that asks."""

    def __init__(self) -> None:
        self.messages: dict[int, tuple[Any, float]] = {1: (message("own"), 0)}
        self.measured: dict[int, Any] = {}
        self.cpu_s = {101: 10.0, 102: 20.0, 103: 30.0}
        self.neighbours = Neighbours(
            self.messages, self.measured, lambda: {1: 101, 2: 102, 3: 103}, lambda native_id: self.cpu_s.get(native_id)
        )
        self.neighbours.look()

    def listed(self, before: Any, own: int = 1) -> list[tuple[str, float]]:
        found = self.neighbours.listed(before, self.neighbours.used(), own)
        assert all(other["actor_name"] == f"actor of {other['task_id']}" for other in found)
        return [(other["task_id"], other["cpu_ms"]) for other in found]


def test_tasks_are_charged_with_what_their_threads_used_meanwhile() -> None:
    process = Process()
    for thread_id, name in ((2, "a"), (3, "b")):
        process.messages[thread_id] = message(name), thread_id
    process.cpu_s[102] += 5.0
    process.neighbours.look()

    # From here on
    before = process.neighbours.used()
    process.cpu_s.update({101: 11.0, 102: 25.25, 103: 30.75})
    process.neighbours.look()
    process.cpu_s[103] += 0.25

    assert process.listed(before) == [("b", 1000.0), ("a", 250.0)]


def test_a_task_that_ended_meanwhile_is_listed_and_the_next_one_on_its_thread_too() -> None:
    process = Process()
    process.messages[2] = message("first"), 1
    before = process.neighbours.used()
    process.neighbours.look()
    process.cpu_s[102] += 1.0
    process.neighbours.look()
    process.messages[2] = message("second"), 2
    process.cpu_s[102] += 0.5
    process.neighbours.look()
    del process.messages[2]

    assert process.listed(before) == [("first", 1000.0), ("second", 500.0)]

    process.neighbours.forget()
    assert [used.task_id for used in process.neighbours.used().values()] == ["own"]


def test_the_time_between_two_accounted_periods_hides_no_neighbour() -> None:
    process = Process()
    process.neighbours.rest()
    process.messages[2] = message("a"), 1
    process.cpu_s[102] += 10.0  # While nobody looks.

    before = process.neighbours.used()
    process.neighbours.begin()
    process.neighbours.look()
    process.cpu_s[102] += 3.0
    process.neighbours.look()

    assert process.listed(before) == [("a", 3000.0)]


def test_what_a_task_used_after_the_last_look_counts_unless_its_thread_has_another_task() -> None:
    process = Process()
    process.messages.update({2: (message("ends"), 1), 3: (message("is followed"), 1)})
    process.neighbours.look()
    before = process.neighbours.used()
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


def test_the_steps_of_a_coroutine_count_for_its_task() -> None:
    process = Process()
    process.messages[2], process.measured[2] = (message("async"), 1), SimpleNamespace(cpu_s=1.0)
    process.neighbours.look()
    process.neighbours.look()
    before = process.neighbours.used()
    process.measured[2].cpu_s = 1.75
    process.neighbours.look()
    # Then it has ended: its clock seems to go back
    del process.measured[2]
    process.neighbours.look()

    assert process.listed(before) == [("async", 750.0)]


def test_a_thread_that_has_ended_and_tasks_that_used_nothing_are_no_neighbours() -> None:
    process = Process()
    for thread_id, name in ((2, "gone"), (3, "idle"), (4, "unknown")):
        process.messages[thread_id] = message(name), 1
    before = process.neighbours.used()
    del process.cpu_s[102]
    process.neighbours.look()

    assert process.listed(before) == []


def test_the_list_has_a_bound() -> None:
    process = Process()
    before = process.neighbours.used()
    for number in range(MAX_LISTED + 5):
        process.messages[2] = message(str(number)), number
        process.cpu_s[102] += 1.0
        process.neighbours.look()

    assert len(process.listed(before)) == MAX_LISTED
