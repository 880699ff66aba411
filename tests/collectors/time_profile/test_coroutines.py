"""Async actors: what the time profile's sampler follows of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support import PATIENCE_S
from support.profiles import read_page, read_row, shares, spin

#: Shares of time, sample by sample.
pytestmark = pytest.mark.alone


async def read_mail(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def one_after_another() -> None:
    await read_page(0.5)
    await read_row(0.3)
    await read_mail(0.2)


def test_what_an_async_actor_awaits_has_its_share_with_ten_of_them_at_once(bench, settings, stored):
    given = settings(task_diagnostics=["pyinstrument"])

    with bench(given, threads=10) as tasks:
        actor = tasks.actor(one_after_another)
        ids = [actor.send().message_id for _ in range(10)]
        tasks.finish()

    for task_id in ids:
        found = shares(stored(given), task_id)
        assert found["one_after_another"] == pytest.approx(100)
        assert found["read_page"] == pytest.approx(50, abs=5)
        assert found["read_row"] == pytest.approx(30, abs=5)
        assert found["read_mail"] == pytest.approx(20, abs=5)


async def with_gather() -> None:
    await asyncio.gather(read_page(0.3), read_row(0.3), read_mail(0.1))


async def with_task_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(read_page(0.3))
        group.create_task(read_row(0.3))
        group.create_task(read_mail(0.1))


async def with_wait() -> None:
    await asyncio.wait([asyncio.ensure_future(step) for step in (read_page(0.3), read_row(0.3), read_mail(0.1))])


@pytest.mark.parametrize("at_once", [with_gather, with_task_group, with_wait])
def test_tasks_that_are_awaited_at_once_share_the_time(bench, settings, stored, at_once):
    given = settings(task_diagnostics=["pyinstrument"])

    with bench(given) as tasks:
        task_id = tasks.run(at_once)

    # 0.1 s for all three of them, and 0.2 s more for two.
    found = shares(stored(given), task_id)
    assert found["read_page"] == pytest.approx(100 * (0.1 / 3 + 0.2 / 2) / 0.3, abs=8)
    assert found["read_row"] == pytest.approx(100 * (0.1 / 3 + 0.2 / 2) / 0.3, abs=8)
    assert found["read_mail"] == pytest.approx(100 * (0.1 / 3) / 0.3, abs=8)


async def numbers() -> Any:
    for number in range(3):
        await asyncio.sleep(0.05)
        yield number


async def through_others() -> None:
    await asyncio.wait_for(read_page(0.1), PATIENCE_S)
    await asyncio.create_task(read_row(0.1))
    async for _ in numbers():
        pass


def test_it_follows_tasks_timeouts_and_asynchronous_generators(bench, settings, stored):
    given = settings(task_diagnostics=["pyinstrument"])

    with bench(given) as tasks:
        task_id = tasks.run(through_others)

    assert {"read_page", "read_row", "numbers", "[await]"} <= set(shares(stored(given), task_id))


async def one_works() -> None:
    await asyncio.gather(read_page(0.2), work_for_a_while())


async def work_for_a_while() -> None:
    spin(0.2)


def test_of_tasks_that_are_awaited_at_once_the_one_that_runs_has_the_time(bench, settings, stored):
    given = settings(task_diagnostics=["pyinstrument"])

    with bench(given) as tasks:
        task_id = tasks.run(one_works)

    assert shares(stored(given), task_id)["work_for_a_while"] > 80


class Tripwire:
    """An object whose attributes must not be asked for."""

    def __init__(self) -> None:
        vars(self)["touched"] = []

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        vars(self)["touched"].append("__class__")
        return Tripwire

    def __getattr__(self, name: str) -> Any:
        vars(self)["touched"].append(name)
        raise AttributeError(name)


def test_nothing_of_the_application_runs_while_a_coroutine_is_followed(bench, settings, stored):
    given = settings(task_diagnostics=["pyinstrument"], pyinstrument_interval=0.001)
    wire = Tripwire()

    async def hold_it() -> None:
        held = wire  # noqa: F841 - a local of the coroutine that waits.
        await asyncio.wait([asyncio.ensure_future(read_page(0.1))])

    with bench(given) as tasks:
        task_id = tasks.run(hold_it)

    assert "read_page" in shares(stored(given), task_id)
    assert vars(wire)["touched"] == []
