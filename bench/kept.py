"""What runs cost that no keep rule keeps, and that those are kept which one does."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterator

import dramatiq
from sqlalchemy import func, select

from dramatiq_diag.maintenance.consistency import check
from dramatiq_diag.settings import Settings
from dramatiq_diag.statuses import ArtifactStatus
from dramatiq_diag.store.models import Artifact, TaskRun
from dramatiq_diag.store.store import Store

from .hooks import _BLOCK, _BLOCKS, _WORK_S, _Hooks
from .publisher import _ROUNDS, _rate
from .result import Result, interleaved, median_ratio, percentile, ratio
from .worker import worker

_SHORT = 10_000
_SLOW = 10
_SLOW_S = 1.0

_NAMES = ["memory", "pyinstrument"]
_KEEP_IF = "duration>500ms, failed"


def run() -> Iterator[Result]:
    """Yields which runs were kept, and the rows of hooks and publisher."""
    yield _kept()
    yield _hooks()
    yield _published()


def _kept() -> Result:
    with worker(threads=2, task_diagnostics=_NAMES, keep_if=_KEEP_IF) as (broker, diagnostics):
        actor = dramatiq.actor(_work, actor_name="work", broker=broker)
        slow: set[str] = set()
        for number in range(_SHORT):
            actor.send(0.0)
            if number % (_SHORT // _SLOW) == 0:
                slow.add(actor.send(_SLOW_S).message_id)
        broker.join(actor.queue_name)
        assert diagnostics.flush(120)
        stored, counts, clean = _found(diagnostics.settings)
    dropped = counts[ArtifactStatus.DROPPED, f"Dropped: none of its keep rules held ({_KEEP_IF})."]
    return Result(
        what=f"{_SHORT} short and {_SLOW} slow runs, {','.join(_NAMES)}, keep rules",
        budget=f"the {_SLOW} slow ones stored",
        measured=f"{len(stored)} runs stored, {dropped // len(_NAMES)} dropped with the reason",
        met=stored == slow and dropped == _SHORT * len(_NAMES) and clean,
    )


def _found(settings: Settings) -> tuple[set[str], Counter[tuple[str, str | None]], bool]:
    """Returns: The tasks with something stored, how many artifacts have which status and reason, and a clean check."""
    store = Store(settings)
    try:
        with store.session() as session:
            live = select(TaskRun.task_id).join(Artifact, Artifact.run_id == TaskRun.run_id)
            stored = set(session.scalars(live.where(Artifact.status == ArtifactStatus.STORED)))
            grouped = select(Artifact.status, Artifact.reason, func.count()).group_by(Artifact.status, Artifact.reason)
            counts = Counter({(status, reason): count for status, reason, count in session.execute(grouped)})
        return stored, counts, not check(store)
    finally:
        store.close()


def _hooks() -> Result:
    with worker(task_diagnostics=["memory"]) as memory, worker(task_diagnostics=_NAMES, keep_if=_KEEP_IF) as dropped:
        ways = [_Hooks(*way, work_s=_WORK_S) for way in (memory, dropped)]
        for _ in range(_BLOCKS):
            for hooks in ways:
                hooks.block()
    medians = [statistics.median(hooks.spent_us[_BLOCK:]) for hooks in ways]
    p99 = percentile(ways[1].spent_us[_BLOCK:], 99)
    return Result(
        what=f"both hooks, {','.join(_NAMES)}, of runs that are dropped",
        budget="300 us, p99 1000 us",
        measured=f"{medians[1]:.1f} us, p99 {p99:.0f} us",
        reference=f"memory alone, all kept: {medians[0]:.1f} us",
        met=medians[1] <= 300 and p99 <= 1000,
    )


def _published() -> Result:
    memory, dropped = interleaved(_ROUNDS, lambda: _rate(["memory"], {}), lambda: _rate(_NAMES, {"keep_if": _KEEP_IF}))
    return Result(
        what=f"publisher into SQLite, {','.join(_NAMES)}, of runs that are dropped, over memory alone",
        budget="1 times its rate",
        measured=ratio(dropped, memory),
        reference=f"{statistics.median(memory):.0f} runs/s",
        met=median_ratio(dropped, memory) >= 1,
    )


def _work(seconds: float) -> None:
    time.sleep(seconds)
