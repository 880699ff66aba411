"""What looks at a coroutine tell while its event loop, which the test itself is, executes nothing or is busy."""

from __future__ import annotations

import asyncio
import socket
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from typing import Any

import pytest

from dramatiq_diag.collectors.accounting.account import Account
from dramatiq_diag.collectors.accounting.arithmetic import Where
from dramatiq_diag.collectors.accounting.coroutine_waits import CoroutineWaits
from dramatiq_diag.runtime.coroutine_steps import MeasuredCoroutine
from support.client_libraries import wait_as_aiohttp, wait_as_anyio, wait_as_asyncpg

SLEEP, LOOP_WAIT = ("awaiting", "sleep"), ("loop_wait", None)


class Loop(asyncio.SelectorEventLoop):
    """A loop with a clock that the test moves."""

    now_s = 0.0

    def time(self) -> float:
        return self.now_s


@pytest.fixture
def loop() -> Iterator[Loop]:
    with closing(Loop()) as loop:
        yield loop
        for task in asyncio.all_tasks(loop):
            task.cancel()
        step(loop)


def step(loop: asyncio.AbstractEventLoop, turns: int = 3) -> None:
    """Lets each coroutine that can go on do so."""
    for _ in range(turns):
        loop.run_until_complete(asyncio.sleep(0))


class Looks:
    """Looks at one coroutine, time after time."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.account = Account(1, 2, lambda: 0.0, lambda: coroutine)
        self._coroutine = coroutine
        self.running: list[Account] = []
        self._waits = CoroutineWaits()

    def look(
        self, *, is_busy: bool = False, later_s: float = 0.0, meanwhile: Callable[[], object] = bool
    ) -> dict[Where, float]:
        """Returns: What a look that stands for a second has added to the account; it may correct what others added.

        Parameters:
          is_busy: Whether the loop executes something.
          later_s: How much later than now the look is taken.
          meanwhile: What happens after the look has begun.
        """
        before, now_s = self.account.seen(0.0), time.perf_counter() + later_s
        self.account.last_s = now_s - 1.0
        self._waits.begin()
        meanwhile()
        self.running = self._waits.look({self.account: self._coroutine}, now_s, is_busy=is_busy)
        after = self.account.seen(0.0)
        return {where: after[where] - before.get(where, 0.0) for where in after if after[where] != before.get(where)}

    def seen(self, **how: Any) -> Where:
        """Returns: What it is seen in at this moment."""
        ((where, _),) = self.look(**how).items()
        return where


def plain(coroutine: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
    return coroutine


measured_or_not = pytest.mark.parametrize("given", [MeasuredCoroutine, plain])


@measured_or_not
def test_a_sleep_that_is_over_waits_for_a_loop_that_is_busy(loop, given):
    async def sleep() -> None:
        await asyncio.sleep(10)

    coroutine = given(sleep())
    task = loop.create_task(coroutine)
    looks = Looks(coroutine)
    # It has not begun. Of a measured one it is known exactly until when.
    assert looks.look(is_busy=True) == ({} if given is MeasuredCoroutine else {LOOP_WAIT: 1.0})
    step(loop, 1)
    assert looks.seen(is_busy=False) == SLEEP
    # The loop has not come to it. It is in its selector, or has just left it.
    assert looks.seen(is_busy=False, later_s=11) == SLEEP
    assert looks.seen(is_busy=True, later_s=11) == LOOP_WAIT
    loop.now_s += 11
    loop.run_until_complete(task)
    assert sum(looks.look().values()) == pytest.approx(0.0)


@measured_or_not
def test_after_a_step_it_awaits_something_else(loop, given):
    event = asyncio.Event()

    async def work() -> None:
        await event.wait()
        await asyncio.sleep(60)

    coroutine = given(work())
    loop.create_task(coroutine)
    looks = Looks(coroutine)
    step(loop)
    assert looks.seen(is_busy=True) == ("awaiting", "an event that nobody has set (asyncio.Event)")
    event.set()
    assert looks.seen(is_busy=False) == LOOP_WAIT
    step(loop)
    assert looks.seen(is_busy=True) == SLEEP


async def rows(wait: Callable[[], Any]) -> AsyncIterator[None]:
    await wait()
    yield


class Awaitable:
    """Awaits by the iterator of a coroutine."""

    def __init__(self, wait: Callable[[], Any]) -> None:
        self.wait = wait

    def __await__(self) -> Any:
        async def work() -> None:
            await self.wait()

        return work().__await__()


async def by_loop(wait: Callable[[], Any]) -> None:
    async for _ in rows(wait):
        pass


async def by_comprehension(wait: Callable[[], Any]) -> None:
    assert [each async for each in rows(wait)] == [None]


async def by_anext(wait: Callable[[], Any]) -> None:
    await anext(rows(wait), None)


async def by_context(wait: Callable[[], Any]) -> None:
    async with asynccontextmanager(rows)(wait):
        pass


async def by_close(wait: Callable[[], Any]) -> None:
    async def work() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await wait()

    generator = work()
    await anext(generator)
    await generator.aclose()


async def by_nested_generators(wait: Callable[[], Any]) -> None:
    async def outer() -> AsyncIterator[None]:
        async for each in rows(wait):
            yield each

    async for _ in outer():
        pass


async def by_awaitable(wait: Callable[[], Any]) -> None:
    await Awaitable(wait)


@pytest.mark.parametrize(
    "how", [by_loop, by_comprehension, by_anext, by_context, by_close, by_nested_generators, by_awaitable]
)
def test_what_is_awaited_behind_an_iterator_is_found(loop, how):
    coroutine = MeasuredCoroutine(how(lambda: asyncio.sleep(10)))
    task = loop.create_task(coroutine)
    looks = Looks(coroutine)
    step(loop)
    assert looks.seen(is_busy=False) == SLEEP
    assert looks.seen(is_busy=True, later_s=11) == LOOP_WAIT
    loop.now_s += 11
    loop.run_until_complete(task)


@contextmanager
def asking(loop, work: Callable[..., Coroutine[Any, Any, None]]) -> Iterator[tuple[Looks, str, socket.socket]]:
    """Runs a coroutine until it waits for an answer. Yields: Looks at it, the address of its server, the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        coroutine = MeasuredCoroutine(work(host, port))
        task = loop.create_task(coroutine)
        looks = Looks(coroutine)
        step(loop)
        with server.accept()[0] as peer:
            step(loop, 10)
            yield looks, f"{host}:{port}", peer
            loop.run_until_complete(task)


@pytest.mark.parametrize("wait", [wait_as_aiohttp, wait_as_anyio, wait_as_asyncpg])
def test_an_answer_that_a_client_library_awaits_is_that_of_its_peer(loop, wait):
    with asking(loop, wait) as (looks, address, peer):
        # Its loop is busy, and the answer has not come
        assert looks.seen(is_busy=True) == ("awaiting", address)
        peer.send(b"1")
        # The answer has come, and another coroutine keeps the loop
        assert looks.seen(is_busy=True) == LOOP_WAIT


def test_a_connection_that_a_coroutine_has_beside_what_it_awaits_is_not_its_wait(loop):
    future = loop.create_future()

    async def work(*address: Any) -> None:
        reader, writer = await asyncio.open_connection(*address)
        await future
        await reader.readexactly(1)
        writer.close()

    with asking(loop, work) as (looks, _, peer):
        peer.send(b"1")
        assert looks.seen(is_busy=True) == ("awaiting", "a future that nobody has completed yet")
        future.set_result(None)


def test_an_answer_that_is_awaited_in_a_generator_is_that_of_its_peer(loop):
    async def ask(*address: Any) -> AsyncIterator[bytes]:
        reader, writer = await asyncio.open_connection(*address)
        yield await reader.readexactly(1)
        writer.close()

    async def work(*address: Any) -> None:
        async for _ in ask(*address):
            pass

    with asking(loop, work) as (looks, address, peer):
        assert looks.seen(is_busy=False) == ("awaiting", address)
        peer.send(b"1")
        assert looks.seen(is_busy=True) == LOOP_WAIT


def test_a_task_that_it_awaits_is_followed_from_step_to_step(loop):
    event = asyncio.Event()

    async def inner() -> None:
        await event.wait()
        await asyncio.sleep(60)

    async def outer() -> None:
        await asyncio.create_task(inner())

    coroutine = MeasuredCoroutine(outer())
    loop.create_task(coroutine)
    looks = Looks(coroutine)
    step(loop)
    assert looks.seen(is_busy=True) == ("awaiting", "an event that nobody has set (asyncio.Event)")
    event.set()
    step(loop)
    assert looks.seen(is_busy=True) == SLEEP


@measured_or_not
def test_its_own_step_runs(loop, given):
    seen = []

    async def work() -> None:
        seen.append((looks.look(), looks.running))
        await asyncio.sleep(0)
        seen.append((looks.look(), looks.running))

    coroutine = given(work())
    looks = Looks(coroutine)
    task = loop.create_task(coroutine)
    loop.run_until_complete(task)
    assert seen == [({}, [looks.account])] * 2


def test_an_answer_that_has_come_waits_for_a_loop_that_is_busy(loop):
    own, peer = socket.socketpair()

    async def ask() -> None:
        reader, writer = await asyncio.open_connection(sock=own)
        await reader.readexactly(1)
        await reader.readexactly(1)
        writer.close()

    with peer:
        coroutine = MeasuredCoroutine(ask())
        task = loop.create_task(coroutine)
        looks = Looks(coroutine)
        step(loop)
        assert looks.seen(is_busy=True) == ("awaiting", "an answer")
        assert looks.seen(is_busy=True, meanwhile=lambda: peer.send(b"1")) == ("awaiting", "an answer")
        assert looks.seen(is_busy=False) == ("awaiting", "an answer")
        assert looks.seen(is_busy=True) == LOOP_WAIT
        step(loop)
        assert looks.seen(is_busy=True) == ("awaiting", "an answer")
        peer.send(b"2")
        loop.run_until_complete(task)


def test_nothing_that_is_awaited_is_kept_alive_between_looks(loop):
    futures: list[Any] = []

    async def work() -> None:
        future = loop.create_future()
        futures.append(weakref.ref(future))
        await future
        del future
        await asyncio.sleep(60)

    coroutine = MeasuredCoroutine(work())
    loop.create_task(coroutine)
    looks = Looks(coroutine)
    step(loop, 1)
    assert looks.seen(is_busy=True) == ("awaiting", "a future that nobody has completed yet")
    futures[0]().set_result(None)
    step(loop)
    assert futures[0]() is None
    assert looks.seen(is_busy=True) == SLEEP


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("is_seen_late", [False, True])
def test_a_sleep_that_is_over_is_divided_by_its_end_and_the_next_step(loop, is_seen_late, is_last):
    async def work() -> None:
        await asyncio.sleep(10)
        if not is_last:
            await asyncio.sleep(60)

    coroutine = MeasuredCoroutine(work())
    loop.create_task(coroutine)
    looks = Looks(coroutine)
    step(loop, 1)
    loop.now_s += 10
    since_s, from_s = coroutine.waits_since_s, time.perf_counter()
    assert looks.seen(is_busy=is_seen_late, later_s=5) == (LOOP_WAIT if is_seen_late else SLEEP)
    to_s = time.perf_counter()
    time.sleep(0.02)
    loop.now_s += 1
    step(loop)
    until_s = coroutine.waits_until_s
    if not is_last:  # Otherwise the run may have ended before there is another look.
        looks.look()

    seen, wait_s = looks.account.seen(0.0), until_s - since_s
    assert sum(seen.values()) == pytest.approx(1.0 if is_last else 2.0)
    assert (until_s - to_s) / wait_s <= seen[LOOP_WAIT] <= (until_s - from_s) / wait_s
    assert len(seen) == 2


def test_a_sleep_that_is_over_before_it_was_looked_at_is_divided_too(loop):
    async def work() -> None:
        await asyncio.sleep(10)
        looks.look()
        await asyncio.sleep(60)

    coroutine = MeasuredCoroutine(work())
    task = loop.create_task(coroutine)
    looks = Looks(coroutine)
    step(loop, 1)
    time.sleep(0.02)
    loop.now_s += 10.01
    loop.call_soon(lambda: loop.call_soon(lambda: seen.append(looks.seen(is_busy=False))))
    seen: list[Where] = []
    step(loop)
    assert seen == [LOOP_WAIT]
    assert not task.done()
    assert sum(looks.account.seen(0.0).values()) == pytest.approx(1.0)
    assert 0.0 < looks.account.seen(0.0)[LOOP_WAIT] < 1.0
