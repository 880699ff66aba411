"""Async actors: what the time profile's sampler follows of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from support import PATIENCE_S, eventually
from support.profiles import read_page, read_row, shares
from support.sampling import Sampled, Step, sampler_of
from support.triggers import spin_until


async def read_mail(step: Step) -> None:
    await step.last()


@pytest.mark.usefixtures("driven_sampler")
def test_what_an_async_actor_awaits_has_its_share_with_ten_of_them_at_once(bench, settings, stored):
    given = settings(task_diagnostics=["pyinstrument"])
    page, row, mail = steps = Step(), Step(), Step()

    async def one_after_another() -> None:
        await read_page(page)
        await read_row(row)
        await read_mail(mail)

    with bench(given, threads=10) as tasks:
        actor = tasks.actor(one_after_another)
        ids = [actor.send().message_id for _ in range(10)]
        for step, seconds in zip(steps, (0.5, 0.3, 0.2), strict=True):
            step.wait_for(10)
            sampler_of(tasks).take(seconds)
            step.end()
        tasks.finish()

    for task_id in ids:
        found = shares(stored(given), task_id)
        assert found["one_after_another"] == pytest.approx(100)
        assert found["read_page"] == pytest.approx(50)
        assert found["read_row"] == pytest.approx(30)
        assert found["read_mail"] == pytest.approx(20)


async def with_gather(begin: Callable[..., Any], *work: Coroutine[Any, Any, None]) -> None:
    await asyncio.gather(*(begin(asyncio, each) for each in work))


async def with_task_group(begin: Callable[..., Any], *work: Coroutine[Any, Any, None]) -> None:
    async with asyncio.TaskGroup() as group:
        for each in work:
            begin(group, each)


async def with_wait(begin: Callable[..., Any], *work: Coroutine[Any, Any, None]) -> None:
    await asyncio.wait([begin(asyncio, each) for each in work])


@pytest.mark.usefixtures("driven_sampler")
@pytest.mark.parametrize("at_once", [with_gather, with_task_group, with_wait])
def test_tasks_that_are_awaited_at_once_share_the_time(bench, settings, stored, at_once):
    given = settings(task_diagnostics=["pyinstrument"])
    page, row, mail = steps = Step(), Step(), Step()
    done: list[Any] = []

    def begin(group: Any, coroutine: Coroutine[Any, Any, None]) -> Any:
        task = group.create_task(coroutine)
        task.add_done_callback(done.append)
        return task

    async def all_at_once() -> None:
        await at_once(begin, read_page(page), read_row(row), read_mail(mail))

    # When a sample is taken of all three of them, and another one once the last has ended
    with bench(given) as tasks:
        message = tasks.actor(all_at_once).send()
        for step in steps:
            step.wait_for()
        sampler_of(tasks).take(0.3)
        mail.end()
        eventually(lambda: done, "one of them has ended")
        sampler_of(tasks).take(0.2)
        page.end()
        row.end()
        tasks.finish()

    found = shares(stored(given), message.message_id)
    assert found["read_page"] == pytest.approx(100 * (0.1 + 0.1) / 0.5)
    assert found["read_row"] == pytest.approx(100 * (0.1 + 0.1) / 0.5)
    assert found["read_mail"] == pytest.approx(100 * 0.1 / 0.5)


async def numbers(step: Step) -> AsyncIterator[int]:
    await step.last()
    yield 1


@pytest.mark.usefixtures("driven_sampler")
def test_it_follows_tasks_timeouts_and_asynchronous_generators(bench, settings, stored):
    given = settings(task_diagnostics=["pyinstrument"])
    page, row, number = steps = Step(), Step(), Step()

    async def through_others() -> None:
        await asyncio.wait_for(read_page(page), PATIENCE_S)
        await asyncio.create_task(read_row(row))
        async for _ in numbers(number):
            pass

    with bench(given) as tasks:
        message = tasks.actor(through_others).send()
        for step in steps:
            step.wait_for()
            sampler_of(tasks).take(0.1)
            step.end()
        tasks.finish()

    found = shares(stored(given), message.message_id)
    assert {"read_page", "read_row", "numbers", "[await]"} <= set(found)
    assert [found[name] for name in ("read_page", "read_row", "numbers")] == [pytest.approx(100 / 3)] * 3


@pytest.mark.usefixtures("driven_sampler")
def test_of_tasks_that_are_awaited_at_once_the_one_that_runs_has_the_time(bench, settings, stored):
    given = settings(task_diagnostics=["pyinstrument"])
    page = Step()
    works, over = [], []

    async def work_for_a_while() -> None:
        works.append(True)
        spin_until(lambda: over)

    async def one_works() -> None:
        await asyncio.gather(read_page(page), work_for_a_while())

    with bench(given) as tasks:
        message = tasks.actor(one_works).send()
        page.wait_for()
        eventually(lambda: works, "the other one works")
        sampler_of(tasks).take(0.2)
        over.append(True)
        page.end()
        tasks.finish()

    found = shares(stored(given), message.message_id)
    assert found["work_for_a_while"] == pytest.approx(100)
    assert "read_page" not in found


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

    with bench(given) as tasks:
        sampled = Sampled(tasks)

        async def wait_for_samples() -> None:
            await sampled.sleep(50)

        async def hold_it() -> None:
            held = wire  # noqa: F841 - a local of the coroutine that waits.
            await asyncio.wait([asyncio.ensure_future(wait_for_samples())])

        task_id = tasks.run(hold_it)

    assert "wait_for_samples" in shares(stored(given), task_id)
    assert vars(wire)["touched"] == []
