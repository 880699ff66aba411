"""What both hooks of a message cost on the task's thread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import dramatiq
from dramatiq.broker import MessageProxy

from .result import Result, percentile
from .worker import worker

_MESSAGES = 1500
#: Seconds of other work between two messages: a task is rarely nothing at all.
_WORK_S = 0.002


def run() -> Iterator[Result]:
    """Yields the three rows of the hooks."""
    with (
        worker(task_diagnostics_on_request=["memory"]) as idle,
        worker(task_diagnostics=["memory"]) as memory,
        worker(task_diagnostics=["memory", "pyinstrument"]) as both,
    ):
        timed = [_Hooks(*idle), _Hooks(*memory), _Hooks(*both)]
        for _ in range(_MESSAGES):
            for hooks in timed:
                hooks.message()
    names = ("nothing selected", "memory", "memory,pyinstrument")
    budgets = ((2.0, None), (300.0, 1000.0), (1000.0, None))
    for name, (median_us, p99_us), hooks in zip(names, budgets, timed, strict=True):
        median, p99 = statistics.median(hooks.spent_us), percentile(hooks.spent_us, 99)
        yield Result(
            what=f"both hooks, {name}",
            budget=f"{median_us:g} us" + ("" if p99_us is None else f", p99 {p99_us:g} us"),
            measured=f"{median:.1f} us, p99 {p99:.0f} us",
            met=median <= median_us and (p99_us is None or p99 <= p99_us),
        )


class _Hooks:
    """Calls the hooks of one middleware around a little work."""

    def __init__(self, broker: dramatiq.Broker, diagnostics: Any) -> None:
        self.broker, self.diagnostics = broker, diagnostics
        self.actor = dramatiq.actor(_work, actor_name="work", broker=broker)
        self.spent_us: list[float] = []

    def message(self) -> None:
        message = MessageProxy(self.actor.message())
        clock = time.perf_counter
        started = clock()
        self.diagnostics.before_process_message(self.broker, message)
        before_s = clock() - started
        self.actor()
        started = clock()
        self.diagnostics.after_process_message(self.broker, message, result=None)
        self.spent_us.append((before_s + clock() - started) * 1e6)


def _work() -> None:
    ends = time.perf_counter() + _WORK_S
    while time.perf_counter() < ends:
        pass
