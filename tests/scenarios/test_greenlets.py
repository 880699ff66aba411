"""Work in greenlets: their frames do not lead back to the function that switched to them."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from typing import Any

import greenlet
import pytest

from support.store import Stored

KEY = "pyinstrument_profile"


def crunch(cpu_s: float) -> None:
    """Uses CPU time: where a thread has to wait for a processor, all parts of a task last longer in proportion."""
    until = time.thread_time() + cpu_s
    while time.thread_time() < until:
        pass


def in_a_greenlet() -> None:
    greenlet.greenlet(crunch).switch(0.3)


async def in_a_greenlet_of_a_coroutine() -> None:
    in_a_greenlet()


async def awaits_it() -> None:
    await in_a_greenlet_of_a_coroutine()


async def in_a_greenlet_that_is_awaited() -> None:
    await asyncio.gather(asyncio.sleep(0), awaits_it())


def with_a_loop_of_its_own() -> None:
    asyncio.run(awaits_it())


def parts(reader: Stored, task_id: str) -> dict[tuple[str, str], float]:
    """The outermost and the innermost function of each stack -> percent of the time."""
    records: list[Any] = json.loads(reader.data(task_id, KEY))["frame_records"]
    spent: Counter[tuple[str, str]] = Counter()
    for stack, seconds in records:
        names = [frame.partition("\0")[0] for frame in stack]
        spent[names[1], names[-1]] += seconds
    whole = sum(spent.values())
    return {ends: 100 * seconds / whole for ends, seconds in spent.items()}


@pytest.mark.parametrize(
    "task",
    [in_a_greenlet, in_a_greenlet_of_a_coroutine, awaits_it, in_a_greenlet_that_is_awaited, with_a_loop_of_its_own],
)
def test_work_in_a_greenlet_is_below_the_actor_s_function(bench, settings, stored, task):
    given = settings(task_diagnostics=["pyinstrument"])

    with bench(given) as tasks:
        task_id = tasks.run(task)

    found = parts(stored(given), task_id)
    assert found[task.__name__, "crunch"] > 60, found
    assert [ends for ends in found if ends[0] != task.__name__] == []


def test_another_task_s_greenlet_on_the_same_loop_is_not_this_one_s(bench, settings, stored):
    given = settings(task_diagnostics=["pyinstrument"])

    async def waits() -> None:
        await asyncio.sleep(0.4)

    with bench(given, threads=2) as tasks:
        waiting, working = tasks.actor(waits), tasks.actor(awaits_it)
        waiting_id = waiting.send().message_id
        working_id = working.send().message_id
        tasks.finish()

    assert parts(stored(given), working_id)["awaits_it", "crunch"] > 60
    waited = parts(stored(given), waiting_id)
    assert waited["waits", "[await]"] > 60  # A sample may be of the step that begins the sleep.
    assert "crunch" not in {innermost for _, innermost in waited}
