"""What memray and pyinstrument's profiler do beside an interrupt: a time limit, an abort, a shutdown."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from contextlib import closing
from typing import Any

import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import threading as dramatiq_threading
from dramatiq.middleware.time_limit import TimeLimitExceeded

from dramatiq_diag import Diagnostics
from dramatiq_diag.statuses import ArtifactStatus
from support import PATIENCE_S, eventually
from support.tasks import running

#: CPython 3.11 repeats each function entry while an interrupt waits for its thread and a profile function is set.
STALLS = sys.version_info < (3, 12)


def raising() -> Any:
    return dramatiq_threading.raise_thread_exception.__globals__["_raise_thread_exception_cpython"]


class Blocked:
    """A task in a blocking call in C, until another one has run, and an interrupt that waits for it meanwhile."""

    def __init__(self) -> None:
        self.thread_id: int | None = None
        self.order: list[str] = []
        self._reading, self._writing = os.pipe()

    def block(self) -> None:
        self.thread_id = threading.get_ident()
        try:
            select.select([self._reading], [], [], PATIENCE_S)
        finally:
            self.order.append("blocked")

    def interrupt(self) -> None:
        eventually(lambda: self.thread_id, "the task blocks")
        dramatiq_threading.raise_thread_exception(self.thread_id, TimeLimitExceeded)

    def release(self) -> None:
        """Ends the call once another task has run."""
        eventually(lambda: self.order, "another task has run")
        os.write(self._writing, b"1")

    def close(self) -> None:
        os.close(self._reading)
        os.close(self._writing)


def test_beside_memray_an_interrupt_that_waits_for_a_blocking_call_holds_nothing_up(bench, settings, stored):
    given = settings(task_diagnostics_on_request=["memray"])

    with closing(Blocked()) as blocked, bench(given, threads=2) as tasks:
        # Given a task under memray that an interrupt was raised in, and that does not receive it yet
        first = tasks.actor(blocked.block, diagnostics=["memray"]).send().message_id
        blocked.interrupt()
        # When another task runs, and asks for memray as well
        second = tasks.actor(lambda: blocked.order.append("other"), actor_name="other", diagnostics=["memray"])
        second_id = second.send().message_id
        blocked.release()
        tasks.finish()
        third_id = tasks.run(lambda: None, actor_name="third", diagnostics=["memray"])

    # Then it does not wait for the first; and what becomes of the captures is said
    assert blocked.order == ["other", "blocked"]
    artifacts = [stored(given).artifacts(task_id)["memray_profile"] for task_id in (first, second_id, third_id)]
    statuses = [artifact.status for artifact in artifacts]
    ended = ArtifactStatus.PARTIAL if STALLS else ArtifactStatus.STORED
    assert statuses == [ended, ArtifactStatus.SKIPPED, ArtifactStatus.STORED]
    if STALLS:
        assert all(
            "on CPython 3.11 a profile function stops all threads" in artifact.reason for artifact in artifacts[:2]
        )
        assert artifacts[0].reason.startswith("It was ended before an interrupt was raised")


def test_beside_pyinstruments_profiler_such_an_interrupt_holds_nothing_up(bench, settings, stored):
    given = settings(task_diagnostics_on_request=["pyinstrument"], pyinstrument_engine="profiler")
    runs, go_on = threading.Event(), threading.Event()

    def call_functions() -> None:
        runs.set()
        while not go_on.is_set():
            time.sleep(0.001)
        blocked.order.append("profiled")

    with closing(Blocked()) as blocked, bench(given, threads=2) as tasks:
        # Given a task that is profiled, and an interrupt that waits for another one's blocking call
        profiled_id = tasks.actor(call_functions, diagnostics=["pyinstrument"]).send().message_id
        assert runs.wait(PATIENCE_S)
        tasks.actor(blocked.block).send()
        blocked.interrupt()
        go_on.set()
        blocked.release()
        tasks.finish()
        next_id = tasks.run(lambda: None, actor_name="next", diagnostics=["pyinstrument"])

    # Then the profiled one goes on meanwhile, and its profile is partial where it had to end
    assert blocked.order == ["profiled", "blocked"]
    profiled, after = (stored(given).artifacts(task_id)["pyinstrument_profile"] for task_id in (profiled_id, next_id))
    assert profiled.status == (ArtifactStatus.PARTIAL if STALLS else ArtifactStatus.STORED)
    assert after.status == ArtifactStatus.STORED


@pytest.mark.parametrize(("names", "watched"), [(["memory"], False), (["memray"], STALLS), (["pyinstrument"], STALLS)])
def test_interrupts_are_watched_where_that_is_needed_and_no_longer_than_a_worker_runs(bench, settings, names, watched):
    original = raising()

    with bench(settings(task_diagnostics=names)):
        assert (raising() is not original) == watched

    assert raising() is original


def test_of_two_workers_the_last_one_leaves_dramatiq_as_it_was(bench, settings):
    original = raising()

    # Without AsyncIO: Dramatiq forgets the first of two event loops, whose thread then keeps the process from ending.
    other = StubBroker(middleware=[Diagnostics(settings(task_diagnostics=["memray"]))])
    with bench(settings(task_diagnostics=["memray"])):
        with running(other):
            pass
        assert (raising() is not original) == STALLS
    other.close()

    assert raising() is original


_ASYNC = """
import asyncio, sys
import dramatiq
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import AsyncIO, Middleware, TimeLimit
from dramatiq_diag import Diagnostics, Settings

class Ended(Middleware):
    def after_process_message(self, broker, message, *, result=None, exception=None):
        sys.stdout.write("ended " if exception is not None else "ran ")

broker = StubBroker(middleware=[Ended(), TimeLimit(interval=20), AsyncIO()])
broker.add_middleware(Diagnostics(Settings(task_diagnostics=["memray"], data_dir=sys.argv[1], cleanup_interval=0)))
broker.emit_after("process_boot")

@dramatiq.actor(broker=broker, time_limit=60)
async def too_long():
    while True:
        await asyncio.sleep(0.005)

worker = dramatiq.Worker(broker, worker_threads=8, worker_timeout=100)
worker.start()
for _ in range(40):
    too_long.send()
broker.join("default", fail_fast=False)
worker.stop()
print("stopped", flush=True)
"""


def test_async_actors_under_memray_are_ended_by_their_time_limits_and_the_worker_stops(settings, python):
    given = settings()

    process = python(_ASYNC, str(given.data_dir))
    output, _ = process.communicate(timeout=PATIENCE_S)

    assert output.split() == ["ended"] * 40 + ["stopped"]


# Greenlet.

_GREENLET = """
import subprocess
import sys
import dramatiq
from dramatiq.brokers.stub import StubBroker
from dramatiq_diag import Diagnostics, Settings

if sys.argv[2] == "before":
    import greenlet
broker = StubBroker()
diagnostics = Diagnostics(Settings(task_diagnostics=["memray"], data_dir=sys.argv[1], cleanup_interval=0))
broker.add_middleware(diagnostics)

@dramatiq.actor(broker=broker)
def work():
    import greenlet

work.send()
print("memray" in sys.modules, flush=True)
worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=10)
worker.start()
work.send()
broker.join("default")
worker.join()
diagnostics.flush(170)
worker.stop()
sys.stderr.flush()
"""


@pytest.mark.parametrize("imported", ["before", "by a task"])
def test_memrays_first_tracker_beside_greenlet_prints_nothing(settings, stored, tmp_path, imported):
    given = settings()
    done = subprocess.run(
        [sys.executable, "-c", _GREENLET, str(given.data_dir), imported],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
        cwd=tmp_path,
    )

    # It is printed by the rich package; an interrupt in that ends the process.
    assert "Greenlet is experimental" not in done.stderr
    # And nothing of this happens in a process that only sends, nor is any other file left
    assert done.stdout.split()[0] == "False"
    assert [path.name for path in tmp_path.iterdir()] == [given.data_dir.name]
    statuses = [stored(given).artifacts(run.task_id)["memray_profile"].status for run in stored(given).all_runs()]
    assert statuses == [ArtifactStatus.STORED] * 2
