"""Time profiles that do not depend on how busy the machine is: the test says when a step ends, or a sample is taken."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from dramatiq_diag.collectors.time_profile.sampler import Sampler
from support import PATIENCE_S, eventually
from support.triggers import spin_until


class DrivenSampler(Sampler):
    """A sampler without a thread: the test takes each sample, and says how much time it stands for."""

    def start(self) -> None: ...

    def take(self, seconds: float) -> None:
        """Takes a sample of all profiles."""
        due_s = time.perf_counter() + 1e6
        for profile in self.profiles:
            profile.last_s = due_s - seconds
        self._sample(due_s)


def sampler_of(tasks: Any) -> Any:
    """Returns: The sampler of a bench."""
    return tasks.diagnostics.process.collectors["pyinstrument"].sampler


class Step:
    """A step of tasks, which lasts until the test ends it."""

    def __init__(self) -> None:
        self.begun: list[None] = []
        "One item for each task that has come to it."
        self._over: Future[None] = Future()
        self.lock = threading.Lock()
        "Held until the end."
        self.lock.acquire()

    async def last(self) -> None:
        """Awaits its end."""
        self.begun.append(None)
        await self.future()

    def future(self) -> asyncio.Future[None]:
        """Returns: What is done at its end."""
        asyncio.get_running_loop().call_later(PATIENCE_S, self.end)  # A test that failed does not end it.
        return asyncio.wrap_future(self._over)

    def wait_for(self, count: int = 1) -> None:
        """Waits until so many tasks have come to it."""
        eventually(lambda: len(self.begun) == count, f"{count} tasks are at this step")

    def end(self) -> None:
        """Lets all of them go on."""
        if not self._over.done():
            self._over.set_result(None)
            self.lock.release()


class Sampled:
    """Lets the tasks of a bench stay where they are until the sampler has seen them there.

    Parameters:
      tasks: The bench.
    """

    def __init__(self, tasks: Any) -> None:
        self._sampler = sampler_of(tasks)

    def more(self, count: int) -> Callable[[], bool]:
        """Returns: Whether so many samples of each profile have been taken since this was called."""
        before: dict[Any, int] = {}

        def are_taken() -> bool:
            profiles = self._sampler.profiles
            for profile in profiles:
                before.setdefault(profile, profile.sample_count)
            return bool(profiles) and all(profile.sample_count >= before[profile] + count for profile in profiles)

        return are_taken

    def spin(self, count: int) -> None:
        """Keeps the thread busy until then."""
        spin_until(self.more(count))

    async def sleep(self, count: int) -> None:
        """Awaits one short sleep after the other until then."""
        are_taken = self.more(count)
        while not are_taken():
            await asyncio.sleep(0.001)
