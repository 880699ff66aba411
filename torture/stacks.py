"""Stacks of busy threads are read a great many times: each has to be whole, and made of frames alone.

    python -m torture.stacks [--samples 1000000] [--seconds 600]

The threads call, recurse, raise, generate, await, and leave garbage that lets another thread run when it is finalised.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import CodeType
from typing import Any, ClassVar

from dramatiq_diag.runtime.frames import Look, Place
from dramatiq_diag.runtime.stacks import CoroutineStacks

#: Threads that work while others are looked at.
_THREADS = 3

_BOTTOM: CodeType = threading.Thread._bootstrap.__code__  # type: ignore[attr-defined]


#: The most garbage at a time. While one thread finalises it the others leave more, and no second collection begins. On
#: a busy machine each `time.sleep(0)` takes so long that there is more every time, and a collection never ends.
_MAX_GARBAGE = 100


class Garbage:
    """Leads to itself; whatever thread finalises it lets others run meanwhile."""

    there: ClassVar[list[None]] = []
    "As long as there is garbage."

    def __init__(self) -> None:
        self.itself = self
        self.there.append(None)

    def __del__(self) -> None:
        self.there.pop()
        time.sleep(0)
        calls(3)


def leaves_garbage() -> None:
    for _ in range(min(10, _MAX_GARBAGE - len(Garbage.there))):
        Garbage()


def calls(count: int) -> int:
    return sum(one(number) for number in range(count))


def one(number: int) -> int:
    return number + 1


def deep(depth: int) -> int:
    return deep(depth - 1) + 1 if depth else 0


def raises(depth: int) -> int:
    if not depth:
        raise ValueError
    return raises(depth - 1)


def caught() -> None:
    with suppress(ValueError):
        raises(20)


def generates(depth: int) -> Iterator[int]:
    if depth:
        yield from generates(depth - 1)
    yield one(depth)


def abandoned() -> None:
    generator = generates(10)
    next(generator)
    generator.close()
    next(generates(5))


def closures() -> list[Any]:
    held: list[Any] = [0]

    def outer(number: int) -> Any:
        kept = number

        def inner() -> Any:
            nonlocal kept
            kept += 1
            return held, kept

        return inner()

    return [outer(number) for number in range(30)]


async def awaits(depth: int) -> int:
    if depth:
        return await awaits(depth - 1)
    await asyncio.sleep(0)
    return calls(20)


async def gathers() -> None:
    await asyncio.gather(*(awaits(depth) for depth in range(6)))


_WORK: tuple[Callable[[], object], ...] = (
    lambda: calls(200),
    lambda: deep(5),
    lambda: deep(200),
    caught,
    lambda: list(generates(20)),
    abandoned,
    closures,
    leaves_garbage,
    lambda: asyncio.run(gathers()),
    lambda: json.dumps([{str(number): [number]} for number in range(50)]),
    lambda: time.sleep(0.0003),
)


@dataclass
class Found:
    """How it went."""

    samples: int = 0
    places: int = 0
    torn: int = 0
    "Stacks that do not lead to where their thread began, or have something in them that is no code."


class _Busy:
    """Threads that work until they are told to stop, and one whose event loop runs `gathers` over and over."""

    def __init__(self) -> None:
        self.stopped = False
        self.coroutine: Any = None
        self.loop_thread = threading.Thread(target=asyncio.run, args=(self._await(),))
        self.threads = [threading.Thread(target=self._work) for _ in range(_THREADS)]

    def __enter__(self) -> _Busy:
        for thread in (*self.threads, self.loop_thread):
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped = True
        for thread in (*self.threads, self.loop_thread):
            thread.join()

    def _work(self) -> None:
        while not self.stopped:
            for work in _WORK:
                work()

    async def _await(self) -> None:
        while not self.stopped:
            self.coroutine = gathers()
            await self.coroutine


def read_stacks(samples: int, seconds: float) -> Found:
    """Reads the stacks of busy threads. Returns: What it found after so many samples, or after so long."""
    found = Found()
    interval_s, thresholds = sys.getswitchinterval(), gc.get_threshold()
    ends = time.perf_counter() + seconds
    try:
        sys.setswitchinterval(0.0001)
        gc.set_threshold(100)
        with _Busy() as busy:
            while found.samples < samples and time.perf_counter() < ends:
                _read(busy, found)
                if found.samples % 50 < 2 * _THREADS:
                    time.sleep(0)  # The others would hardly run beside a loop that never waits.
    finally:
        sys.setswitchinterval(interval_s)
        gc.set_threshold(*thresholds)
    return found


def _read(busy: _Busy, found: Found) -> None:
    look = Look()
    stacks = [look.thread(thread.ident or 0) for thread in (*busy.threads, busy.loop_thread)]
    coroutine = busy.coroutine
    awaited = None if coroutine is None else CoroutineStacks(look, coroutine, busy.loop_thread.ident or 0)
    look.take()
    for stack in stacks:
        found.samples += 1
        found.places += len(stack)
        found.torn += not _is_whole(stack)
    if awaited is not None:
        codes: dict[int, CodeType] = {}
        awaited.read(codes)
        found.torn += not all(type(code) is CodeType for code in codes.values())


def _is_whole(stack: list[Place]) -> bool:
    return bool(stack) and stack[-1][0] is _BOTTOM and all(type(code) is CodeType for code, _ in stack)


def main() -> None:
    """Reads stacks and says how it went; the exit status is 1 where any was torn."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=600.0)
    arguments = parser.parse_args()
    found = read_stacks(arguments.samples, arguments.seconds)
    counts = f"{found.samples} stacks of {found.places} frames, {found.torn} of them torn"
    sys.stdout.write(f"{sys.version.split()[0]}: {counts}\n")
    sys.exit(found.torn > 0)


if __name__ == "__main__":
    main()
