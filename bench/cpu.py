"""Whether the CPU time of all runs is that of their process, in which nothing else runs."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dramatiq
from sqlalchemy import func, select

from dramatiq_diag.runtime.own_threads import own_cpu_s
from dramatiq_diag.store.models import TaskRun
from dramatiq_diag.store.store import Store

from .result import Result
from .worker import worker

#: CPU seconds of a task, and the number of tasks.
_TASKS = ((2.5, 8), (0.25, 80))
_THREADS = 4


def run() -> Iterator[Result]:
    """Yields two rows for long tasks, and two for short ones: without and with the threads of this package."""
    for task_s, count in _TASKS:
        command = [sys.executable, "-m", "bench.cpu", str(task_s), str(count)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
        found = json.loads(done.stdout)
        more = found["process_s"] / found["runs_s"] - 1
        of_all_s = found["runs_s"] + found["own_s"]
        rest = found["process_s"] / of_all_s - 1
        what = f"CPU time of {count} runs of {task_s:g} s on {_THREADS} threads, `memory`, and of their process"
        yield Result(
            what=what,
            budget="2 %",
            measured=f"{more:.1%} more: {found['runs_s']:.3f} s, {found['process_s']:.3f} s",
            reference=f"threads that execute no task: {found['others_s']:.3f} s",
            met=abs(more) <= 0.02,
        )
        yield Result(
            what=f"{what}, with that of the threads of diagnostics",
            budget="2 %",
            measured=f"{rest:.1%} more: {of_all_s:.3f} s, {found['process_s']:.3f} s",
            reference=f"threads of diagnostics: {found['own_s']:.3f} s",
            met=abs(rest) <= 0.02,
        )


def _main(task_s: float, count: int) -> None:
    """Executes tasks.

    Prints the number of runs, and the CPU seconds of them, of the process, of its threads that execute no task, and of
    those of this package among them.
    """
    task_threads = set()

    def burn(cpu_s: float) -> None:
        task_threads.add(threading.get_native_id())
        ends = time.thread_time() + cpu_s
        while time.thread_time() < ends:
            pass

    with worker(_THREADS, task_diagnostics=["memory"]) as (broker, diagnostics):
        actor = dramatiq.actor(burn, broker=broker)
        for _ in range(10 * _THREADS):  # The first runs open the store.
            actor.send(0.01)
        broker.join(actor.queue_name)
        assert diagnostics.flush(60)
        with closing(Store(diagnostics.settings)) as store:
            runs_before, before_ms = _counted(store)
            threads_s, process_s, own_s = _threads_s(), _process_s(), own_cpu_s() or 0.0
            for _ in range(count):
                actor.send(task_s)
            broker.join(actor.queue_name)
            assert diagnostics.flush(60)
            process_s, own_s = _process_s() - process_s, (own_cpu_s() or 0.0) - own_s
            others_s = sum(
                cpu_s - threads_s.get(native_id, 0.0)
                for native_id, cpu_s in _threads_s().items()
                if native_id not in task_threads
            )
            runs, counted_ms = _counted(store)
    found = {"runs": runs - runs_before, "runs_s": (counted_ms - before_ms) / 1000}
    sys.stdout.write(json.dumps({**found, "process_s": process_s, "others_s": others_s, "own_s": own_s}))


def _process_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _threads_s() -> dict[int, float]:
    """Returns: Native id of each thread -> its CPU seconds."""
    return {
        int(path.name): int((path / "schedstat").read_text().split()[0]) / 1e9
        for path in Path("/proc/self/task").iterdir()
    }


def _counted(store: Store) -> tuple[int, float]:
    """Returns: How many runs there are, and the sum of their CPU times in milliseconds."""
    with store.session() as session:
        return session.execute(select(func.count(), func.sum(TaskRun.cpu_ms))).one()


if __name__ == "__main__":
    _main(float(sys.argv[1]), int(sys.argv[2]))
