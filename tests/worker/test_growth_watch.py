"""When the memory of the runs is noted, and what a note says."""

from __future__ import annotations

import asyncio
import resource
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import dramatiq
import pytest
from dramatiq.asyncio import EventLoopThread

from dramatiq_diag.runtime.memory_state import MemoryState, MemoryStateReader
from dramatiq_diag.runtime.rss import RssReader
from dramatiq_diag.runtime.thread_faults import ThreadFaults
from dramatiq_diag.spool.memory_story import MemoryStory
from dramatiq_diag.spool.owner_state import read_left
from dramatiq_diag.text import MIB
from dramatiq_diag.worker.growth_watch import GrowthWatch
from dramatiq_diag.worker.run import Run
from dramatiq_diag.worker.touched_memory import TouchedMemory
from dramatiq_diag.worker.tuning import TUNING
from support.simulation import Simulation, simulated

LIMIT = 1000 * MIB


class Memory(MemoryStateReader):
    """The memory of a process in a cgroup of 1,000 MiB, as a test sets it."""

    def __init__(self) -> None:
        self.rss_bytes = 100 * MIB
        self.reads = 0

    def read(self) -> MemoryState:
        self.reads += 1
        return MemoryState(
            rss_bytes=self.rss_bytes,
            available_bytes=90 * LIMIT,
            total_bytes=100 * LIMIT,
            cgroup_bytes=self.rss_bytes,
            cgroup_limit_bytes=LIMIT,
        )

    def read_again(self, last: MemoryState) -> MemoryState:
        return self.read()


class Faults(ThreadFaults):
    """All of the RSS was touched by one thread."""

    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self.native_id = threading.get_native_id()
        self._memory = memory

    def thread_bytes(self, native_id: int) -> int | None:
        return self._memory.rss_bytes if native_id == self.native_id else 0

    def process_bytes(self) -> int | None:
        return self._memory.rss_bytes


class Watched:
    """A process with one run, which grows as a test says."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.memory = Memory()
        self.faults = Faults(self.memory)
        process = simulation.process
        self.spool, self.services = process.spool, process.services
        self.watch = GrowthWatch(
            self.services,
            self.spool,
            self.memory,
            TUNING,
            touched=TouchedMemory(self.faults),
            now=lambda: 5000.0 + simulation.clock.now_s,
        )
        self.runs: list[Run] = [simulation.begin(simulation.actor("eat"))]
        self.look()

    def look(self, mib: int = 100) -> MemoryStory:
        """Looks 50 ms later, when the RSS is so large. Returns: The last note."""
        self.simulation.clock.now_s += 0.05
        self.memory.rss_bytes = mib * MIB
        self.watch.look(self.runs, self.memory.rss_bytes)
        story = read_left(self.spool.owner).story
        assert story is not None
        return story


@pytest.fixture
def watched(settings) -> Iterator[Watched]:
    with simulated(settings(task_diagnostics=["memory"])) as simulation:
        watched = Watched(simulation)
        yield watched
        for run in watched.runs:
            simulation.end(run)


def test_far_from_a_limit_a_look_costs_nothing_more(watched):
    for mib in (110, 120, 130, 140, 120, 90, 130):
        watched.look(mib)

    assert watched.memory.reads == 1


def test_near_a_limit_a_growing_process_is_noted_ten_times_a_second(watched):
    watched.look(850)
    watched.simulation.clock.now_s += 2  # Nothing is urgent any more.
    numbers = [watched.look(850 + 2 * number).number for number in range(1, 21)]

    assert 8 <= numbers[-1] - numbers[0] <= 10
    (run,) = watched.look(900).runs
    assert run.bytes_per_s > 0


def test_near_a_limit_a_process_that_rests_is_not_noted_again(watched):
    watched.look(850)
    watched.simulation.clock.now_s += 2
    number = watched.look(850).number

    assert watched.look(850).number == watched.look(850).number == number


def test_a_jump_toward_the_limit_is_noted_at_once(watched):
    number = watched.look(100).number
    assert watched.look(110).number == number
    story = watched.look(200)
    assert story.number == number + 1
    story = watched.look(400)

    (run,) = story.runs
    assert story.state.rss_bytes == 400 * MIB
    assert (run.task_id, run.actor_name) == (watched.runs[0].task_id, "eat")
    assert run.bytes_per_s == pytest.approx(200 * MIB / 0.05, rel=0.5)
    assert run.touched_bytes == 300 * MIB


def test_a_note_has_the_size_that_its_neighbours_may_give_it_again(watched):
    for mib in (850, 900, 820):
        watched.simulation.clock.now_s += 2
        story = watched.look(mib)

    assert story.state.rss_bytes == 820 * MIB
    assert story.highest_rss_bytes == 900 * MIB


def test_a_note_says_where_the_run_is(watched):
    watched.look(400)
    (run,) = watched.look(700).runs

    # It is on the thread of the test, which takes the note as well
    assert len(run.calls) == 5
    look = next(call for call in run.calls if call.function == "GrowthWatch.look")
    assert look.file.endswith("worker/growth_watch.py")
    assert look.line > 0


def test_each_second_the_touched_memory_is_noted(watched):
    watched.memory.rss_bytes = 130 * MIB
    watched.watch.note(watched.runs, watched.memory.read())

    story = read_left(watched.spool.owner).story
    (run,) = story.runs
    assert (run.run_id, run.touched_bytes, run.calls) == (watched.runs[0].run_id, 30 * MIB, [])
    assert (run.bytes_per_s, story.at) == (None, 5000.0 + watched.simulation.clock.now_s)


def test_growth_on_other_threads_is_nobodys(watched):
    watched.faults.native_id = -1
    watched.look(400)

    story = watched.look(700)

    assert story.other_grows
    assert [run.bytes_per_s for run in story.runs] == [None]


def test_after_a_rest_it_begins_anew(watched):
    watched.look(400)
    watched.watch.rest()
    watched.runs[0].read_at_call = watched.runs[0].first_rss_bytes = None  # As of one that begins late.

    (run,) = watched.look(420).runs
    assert (run.touched_bytes, run.bytes_per_s) == (0, None)


def test_a_task_that_fills_the_memory_at_once_is_named_by_the_first_look(watched):
    watched.watch.rest()
    (run,) = watched.runs
    run.first_rss_bytes = 100 * MIB
    run.read_at_call = run.at_call._replace(
        usage=SimpleNamespace(ru_minflt=100 * MIB // resource.getpagesize(), ru_majflt=0)
    )
    watched.simulation.clock.now_s += 0.05

    story = watched.look(700)

    (noted,) = story.runs
    assert (noted.touched_bytes, noted.task_id) == (600 * MIB, run.task_id)
    assert noted.bytes_per_s == pytest.approx(600 * MIB / run.elapsed_s, rel=0.01)
    assert noted.calls != []


def test_a_rate_is_that_of_the_time_for_which_the_run_has_lasted(watched):
    """The look before it began may be a second older than the run."""
    for _ in range(4):
        watched.simulation.clock.now_s += 1
        watched.look(100)
        watched.watch.note(watched.runs, watched.memory.read())
    (first,) = watched.runs
    watched.simulation.end(first)
    watched.simulation.clock.now_s += 0.85
    late = watched.simulation.begin(watched.simulation.actor("late"))
    late.read_at_call = late.at_call._replace(
        usage=SimpleNamespace(ru_minflt=100 * MIB // resource.getpagesize(), ru_majflt=0)
    )
    watched.runs[:] = [late]
    watched.simulation.clock.now_s += 0.05
    story = watched.look(500)

    (run,) = story.runs
    assert (run.actor_name, run.touched_bytes) == ("late", 400 * MIB)
    assert run.seconds == pytest.approx(0.1)
    assert run.bytes_per_s == pytest.approx(4000 * MIB)
    assert story.bytes_per_s == pytest.approx(4000 * MIB)


@pytest.mark.parametrize("touched_mib", [10, 300])
def test_a_run_that_touched_less_than_others_may_have_is_not_named_by_the_first_look(watched, touched_mib):
    watched.watch.rest()
    (run,) = watched.runs
    run.first_rss_bytes = 100 * MIB
    before = (700 - touched_mib) * MIB // resource.getpagesize()
    run.read_at_call = run.at_call._replace(usage=SimpleNamespace(ru_minflt=before, ru_majflt=0))
    watched.simulation.clock.now_s += 0.05

    (noted,) = watched.look(700).runs

    assert (noted.touched_bytes, noted.bytes_per_s) == (touched_mib * MIB, None)


def test_of_two_coroutines_the_one_that_the_loop_executes_is_found(settings):
    # Given an event loop on which one coroutine waits, and another one keeps the loop
    reached, go_on = threading.Event(), threading.Event()

    async def wait() -> None:
        while not go_on.is_set():
            await asyncio.sleep(0.01)

    async def eat() -> None:
        reached.set()
        go_on.wait()

    loop = EventLoopThread(dramatiq.get_logger(__name__))
    loop.start()
    with simulated(settings(task_diagnostics=["memory"])) as simulation:
        watched = Watched(simulation)
        coroutines = watched.services.coroutines
        coroutines.watch(loop)
        simulation.process.runs[-1] = watched.runs[0]  # Both began on the thread of the test.
        watched.runs.insert(0, simulation.begin(simulation.actor("wait")))
        waits, eats = [_on_thread(loop, function) for function in (wait, eat)]
        watched.runs[0].thread_id, watched.runs[1].thread_id = waits.ident, eats.ident
        reached.wait()
        watched.faults.native_id = loop.native_id
        # When the process grows
        for mib in (200, 300, 400, 500):
            story = watched.look(mib)
        go_on.set()
        for thread in (waits, eats):
            thread.join()
        loop.stop()
        loop.join()
        for run in watched.runs:
            simulation.end(run)

    # Then the note names the coroutine that was executed
    growing = [run for run in story.runs if run.bytes_per_s is not None]
    assert [run.actor_name for run in growing] == ["eat"]
    assert growing[0].calls[-1].function.endswith("eat")
    assert all(run.shares_thread and run.touched_bytes is None for run in story.runs)


def _on_thread(loop: EventLoopThread, function: Any) -> threading.Thread:
    thread = threading.Thread(target=lambda: loop.run_coroutine(function()))
    thread.start()
    return thread


@pytest.mark.skipif(sys.platform != "linux", reason="The files are those of Linux.")
def test_the_state_of_a_moment_later_is_read_without_giving_up_the_gil():
    rss = RssReader()
    reader = MemoryStateReader(rss)
    first = reader.read()
    held = b"x" * (64 * MIB)

    again = reader.read_again(first)
    rss.close()

    assert again.rss_bytes - first.rss_bytes > 0.9 * len(held)
    assert (again.total_bytes, again.boot_id) == (first.total_bytes, first.boot_id)
