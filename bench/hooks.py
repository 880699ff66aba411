"""What both hooks of a message cost on the task's thread."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from unittest.mock import patch

import dramatiq
from dramatiq.broker import MessageProxy

from dramatiq_diag import Diagnostics
from dramatiq_diag.runtime.counters import ThreadCounters
from dramatiq_diag.runtime.rss import RssReader
from dramatiq_diag.spool import entry

from .result import Result, percentile
from .worker import worker

#: Seconds that a task works for, busily.
_WORK_S = 0.02
#: Messages in a block; between blocks everything is published, so that only one way is at work at a time.
_BLOCK = 50
_BLOCKS = 20
#: What the counters of each run may add to the time on the task's thread.
_COUNTERS_BUDGET_US = 15.0


def run() -> Iterator[Result]:
    """Yields the four rows of the hooks, one of the counters of each run, and one of what follows acknowledgements."""
    names = ("nothing selected", "not in the share", "memory", "memory,pyinstrument")
    budgets = ((2.0, None), (2.0, None), (300.0, 1000.0), (1000.0, None))
    with (
        worker(task_diagnostics_on_request=["memory"]) as idle,
        worker(task_diagnostics=["memory"], sample_rate=1e-9) as left_out,
        worker(task_diagnostics=["memory"]) as memory,
        worker(task_diagnostics=["memory", "pyinstrument"]) as both,
        worker(task_diagnostics=["memory"]) as uncounted,
        worker(task_diagnostics=["memory"]) as plain,
    ):
        bare = [_Hooks(*way, work_s=0.0) for way in (idle, left_out)]
        ways = [*bare, *(_Hooks(*way, work_s=_WORK_S) for way in (memory, both, uncounted, plain))]
        for _ in range(_BLOCKS):
            for hooks in ways:
                with _uncounted() if hooks is ways[-2] else _plainly() if hooks is ways[-1] else nullcontext():
                    hooks.block()
    yield _counters_row(ways[2], ways.pop(-2))
    plain_us = statistics.median(ways.pop().spent_us[_BLOCK:])
    for name, (median_us, p99_us), hooks in zip(names, budgets, ways, strict=True):
        spent_us = hooks.spent_us[_BLOCK:]  # The first block opens the store.
        median, p99 = statistics.median(spent_us), percentile(spent_us, 99)
        yield Result(
            what=f"both hooks, {name}",
            budget=f"{median_us:g} us" + ("" if p99_us is None else f", p99 {p99_us:g} us"),
            measured=f"{median:.1f} us, p99 {p99:.0f} us",
            reference=f"by psutil and json: {plain_us:.1f} us" if name == "memory" else "",
            met=median <= median_us and (p99_us is None or p99 <= p99_us),
        )

    acknowledged_us = ways[2].acknowledged_us[_BLOCK:]
    yield Result(
        what="after the acknowledgement, memory",
        budget="",
        measured=f"{statistics.median(acknowledged_us):.1f} us, p99 {percentile(acknowledged_us, 99):.0f} us",
        reference="",
        met=None,
    )


def _counters_row(counted: _Hooks, uncounted: _Hooks) -> Result:
    with_us, without_us = (statistics.median(hooks.spent_us[_BLOCK:]) for hooks in (counted, uncounted))
    return Result(
        what="both hooks, memory: the counters of a run",
        budget=f"{_COUNTERS_BUDGET_US:g} us more",
        measured=f"{with_us - without_us:.1f} us more",
        reference=f"without them: {without_us:.1f} us",
        met=with_us - without_us <= _COUNTERS_BUDGET_US,
    )


@contextmanager
def _uncounted() -> Iterator[None]:
    """Has the counters of a run be constants."""
    nothing = 0.0, 0.0, b"", b"", None
    with patch.object(ThreadCounters, "read", lambda _: nothing):
        yield


@contextmanager
def _plainly() -> Iterator[None]:
    """Has the RSS read, and records written, in the way that is nearest at hand."""
    with (
        patch.object(RssReader, "rss_bytes", lambda reader: int(reader._process.memory_info().rss)),
        patch.object(entry, "encode", lambda record: json.dumps(record, default=str).encode()),
    ):
        yield


class _Hooks:
    """Calls the hooks of one middleware around a little work."""

    def __init__(self, broker: dramatiq.Broker, diagnostics: Diagnostics, *, work_s: float) -> None:
        self.broker, self.diagnostics, self.work_s = broker, diagnostics, work_s
        self.actor = dramatiq.actor(_work, actor_name="work", broker=broker)
        self.spent_us: list[float] = []
        self.acknowledged_us: list[float] = []

    def block(self) -> None:
        for _ in range(_BLOCK):
            self.message()
        assert self.diagnostics.flush(60)

    def message(self) -> None:
        message = MessageProxy(self.actor.message())
        clock = time.perf_counter
        started = clock()
        self.diagnostics.before_process_message(self.broker, message)
        before_s = clock() - started
        self.actor(self.work_s)
        started = clock()
        self.diagnostics.after_process_message(self.broker, message, result=None)
        self.spent_us.append((before_s + clock() - started) * 1e6)
        started = clock()
        self.diagnostics.after_ack(self.broker, message)
        self.acknowledged_us.append((clock() - started) * 1e6)


def _work(work_s: float) -> None:
    ends = time.perf_counter() + work_s
    while time.perf_counter() < ends:
        pass
