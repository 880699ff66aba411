"""What begins in the middle of a run, when its trigger fires."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from typing import Any

import pytest

from dramatiq_diag.policy.propagation import TRIGGERS_OPTION
from dramatiq_diag.reports.profiles import read_allocations
from dramatiq_diag.statuses import ArtifactStatus
from dramatiq_diag.text import MIB
from dramatiq_diag.worker.late_start import LateStart
from support import eventually
from support.tasks import rss_of_runs
from support.triggers import LATE, NOW, Runs, has_function, spin_until

ARTIFACT_OF = {"memory": "memory_profile", "pyinstrument": "pyinstrument_profile", "memray": "memray_profile"}


@pytest.mark.parametrize("name", LATE)
def test_a_collector_begins_when_its_trigger_fires(bench, settings, stored, name):
    given = settings(task_diagnostics_on_request=[name], triggers=f"{NOW}: {name}")

    # When a task goes on after its trigger fired
    with bench(given) as tasks:
        runs = Runs(tasks)

        def work() -> int:
            spin_until(runs.begun(name))
            return after_the_trigger()

        def after_the_trigger() -> int:
            held = [bytearray(1000) for _ in range(20_000)]
            if name == "pyinstrument":
                spin_until(runs.sampled("after_the_trigger"))
            return len(held)

        task_id = tasks.run(work)

    # Then its artifact has what came after
    (artifact,) = stored(given).artifacts(task_id).values()
    assert (artifact.name, artifact.status, artifact.reason) == (ARTIFACT_OF[name], ArtifactStatus.STORED, None)
    data = stored(given).data(task_id, artifact.name)
    if name == "memory":
        elapsed_s = [float(line.split()[0]) for line in data.decode().splitlines()[1:]]
        assert elapsed_s[0] > 0
        assert len(elapsed_s) >= 2
    if name == "pyinstrument":
        assert b"after_the_trigger" in data
        assert f"Task {task_id}: work, from " in json.loads(data)["target_description"]
    assert not stored(given).check()


def test_a_capture_that_begins_late_has_the_tasks_own_stacks(bench, settings, stored):
    given = settings(task_diagnostics_on_request=["memray"], triggers=f"{NOW}: memray")
    stop = threading.Event()
    held: list[bytearray] = []

    def noise() -> None:
        while not stop.wait(0.001):
            held.append(bytearray(100_000))

    with bench(given) as tasks:
        runs = Runs(tasks)

        def work() -> int:
            spin_until(runs.begun("memray"))
            before = len(held)
            spin_until(lambda: len(held) > before + 1)
            return outer()

        def outer() -> int:
            return len(inner())

        def inner() -> bytearray:
            return bytearray(30 * MIB)

        # When a task allocates after its capture began, and another thread does so as well
        thread = threading.Thread(target=noise)
        thread.start()
        task_id = tasks.run(work)
        stop.set()
        thread.join()

    # Then a report of the task's own thread has the calls that were running when it began, and no other thread's
    path = str(stored(given).path(task_id, "memray_profile"))
    samples = read_allocations(path, whole_process=False).samples
    stacks = [([frame.function for frame in sample.frames], sample.value) for sample in samples]
    largest = max(stacks, key=lambda found: found[1])
    assert largest[0] == ["work", "outer", "inner"]
    assert largest[1] >= 30 * MIB
    assert not any("noise" in calls for calls, _ in stacks)
    of_all = read_allocations(path, whole_process=True).samples
    assert any("noise" in [frame.function for frame in sample.frames] for sample in of_all)


def test_captures_begin_late_over_and_over_and_leave_the_interpreter_as_it_was(bench, settings, stored):
    given = settings(task_diagnostics=["memory"], task_diagnostics_on_request=["memray"], triggers=f"{NOW}: memray")
    profiles: list[Any] = []

    with bench(given) as tasks:
        runs = Runs(tasks)

        def work() -> None:
            spin_until(runs.begun("memray"))

        def look() -> None:
            profiles.append((sys.getprofile(), threading.getprofile()))

        actor, after = tasks.actor(work), tasks.actor(look, **{TRIGGERS_OPTION: []})
        ids = []
        for _ in range(10):
            ids.append(actor.send().message_id)
            after.send()
        tasks.finish()

    assert {stored(given).artifacts(task_id)["memray_profile"].status for task_id in ids} == {ArtifactStatus.STORED}
    assert profiles == [(None, None)] * 10


def test_an_async_actor_is_profiled_late(bench, settings, stored):
    given = settings(task_diagnostics_on_request=["pyinstrument"], triggers=f"{NOW}: pyinstrument, stacks")

    with bench(given) as tasks:
        runs = Runs(tasks)

        async def work() -> None:
            (run,) = runs.process.runs.values()
            begun = run.late.begun
            while not begun.get("pyinstrument"):
                await asyncio.sleep(0.001)
            await rest(run)

        async def rest(run: Any) -> None:
            while not has_function(run, "rest"):
                await asyncio.sleep(0.01)

        task_id = tasks.run(work)

    artifacts = stored(given).artifacts(task_id)
    assert {artifact.status for artifact in artifacts.values()} == {ArtifactStatus.STORED}
    assert b"rest" in stored(given).data(task_id, "pyinstrument_profile")
    text = stored(given).data(task_id, "task_logs").decode()
    coroutine = text.partition("coroutine of the task, ")[2].partition("\n\n")[0]
    assert "in test_an_async_actor_is_profiled_late.<locals>.work" in coroutine


def test_a_trigger_of_memory_fires_when_the_process_has_grown(bench, settings, stored, monkeypatch):
    given = settings(task_diagnostics=["memory"], triggers="rss>1GiB: stacks; rss>2GiB: stacks")
    rss_bytes = [100 * MIB]
    looks: list[int] = []

    def read_and_note() -> int:
        looks.append(rss_bytes[0])
        return rss_bytes[0]

    rss_of_runs(monkeypatch, read_and_note)

    with bench(given) as tasks:
        runs = Runs(tasks)

        def grow() -> None:
            (run,) = runs.process.runs.values()
            count = len(looks)
            eventually(lambda: len(looks) >= count + 2, "it was looked at while it is small")
            assert not run.late.wrote_stacks
            rss_bytes[0] = 1025 * MIB
            eventually(runs.wrote_stacks(), "the trigger fired")

        task_id = tasks.run(grow)

    text = stored(given).data(task_id, "task_logs").decode()
    assert text.count("# Stacks of all threads") == 1
    assert "(rss>1GiB)" in text


def test_each_trigger_fires_once(bench, settings, stored, monkeypatch):
    given = settings(task_diagnostics=["memory"], triggers=f"{NOW}: stacks; rss>1KB: stacks")
    looks: list[int] = []
    look = LateStart.look

    def count_and_look(late: LateStart, rss_bytes: int) -> None:
        look(late, rss_bytes)
        looks.append(rss_bytes)

    monkeypatch.setattr(LateStart, "look", count_and_look)
    with bench(given) as tasks:
        task_id = tasks.run(lambda: eventually(lambda: len(looks) > 2, "it was looked at three times"), actor_name="a")

    text = stored(given).data(task_id, "task_logs").decode()
    assert text.count("# Stacks of all threads") == 2
