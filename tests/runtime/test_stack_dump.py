"""Stacks of all threads, as a trigger takes them."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from typing import Any

from dramatiq_diag.runtime.stack_dump import MAX_BYTES
from dramatiq_diag.statuses import ArtifactStatus
from support import PATIENCE_S
from support.triggers import LATER, NOW, Runs, spin_until


def test_stacks_are_those_of_all_threads_the_tasks_own_first(bench, settings, stored):
    given = settings(task_diagnostics=["memory"], triggers=f"{NOW}: stacks")
    release = threading.Event()

    def wait_beside() -> None:
        release.wait(PATIENCE_S)

    beside = threading.Thread(target=wait_beside, name="beside\nthe task")
    beside.start()
    try:
        with bench(given) as tasks:
            runs = Runs(tasks)

            def wait_for_stacks() -> None:
                spin_until(runs.wrote_stacks())

            task_id = tasks.run(wait_for_stacks)
    finally:
        release.set()
        beside.join()

    text = stored(given).data(task_id, "task_logs").decode()
    artifact = stored(given).artifacts(task_id)["task_logs"]
    assert (artifact.filename, artifact.media_type) == ("task.log", "text/plain")
    head, own, *others = text.split("\n\n")
    assert f"({NOW})" in head
    assert "the task's own" in own
    assert "in test_stacks_are_those_of_all_threads_the_tasks_own_first.<locals>.wait_for_stacks" in own
    assert not any("dramatiq_diag.ticker" in other for other in others)
    (other,) = [other for other in others if "wait_beside" in other]
    assert "'beside\\nthe task'" in other


def test_stacks_go_into_the_log_of_a_run_that_has_one(bench, settings, stored):
    given = settings(task_diagnostics=["logs"], triggers=f"{NOW}: stacks; {LATER}: stacks")

    with bench(given) as tasks:
        runs = Runs(tasks)

        def work() -> None:
            logging.getLogger("work").warning("before")
            spin_until(runs.wrote_stacks())
            logging.getLogger("work").warning("after")

        task_id = tasks.run(work)
        quiet = tasks.run(sum, [1], diagnostics_triggers=f"{LATER}: stacks")

    text = stored(given).data(task_id, "task_logs").decode()
    assert text.index("before") < text.index("# Stacks of all threads") < text.index("after")
    artifact = stored(given).artifacts(quiet)["task_logs"]
    assert (artifact.status, artifact.reason) == (ArtifactStatus.STORED, None)


def test_stacks_are_bounded(bench, settings, stored):
    given = settings(task_diagnostics=["memory"], triggers=f"{NOW}: stacks")
    release = threading.Event()

    def deep(levels: int) -> None:
        release.wait(PATIENCE_S) if levels == 0 else deep(levels - 1)

    threads = [threading.Thread(target=deep, args=(200,), name="n" * 5000) for _ in range(20)]
    for thread in threads:
        thread.start()
    try:
        with bench(given) as tasks:
            runs = Runs(tasks)
            task_id = tasks.run(lambda: spin_until(runs.wrote_stacks()), actor_name="a")
    finally:
        release.set()
        for thread in threads:
            thread.join()

    data = stored(given).data(task_id, "task_logs")
    assert len(data) <= MAX_BYTES
    assert b"the task's own" in data
    assert data.endswith(b"... The rest is cut off.\n")


def test_stacks_keep_no_object_alive(bench, settings):
    given = settings(task_diagnostics=["memory"], triggers=f"{NOW}: stacks")

    class Held:
        pass

    with bench(given) as tasks:
        runs = Runs(tasks)
        references: list[Any] = []

        def inner() -> None:
            held = Held()
            references.append(weakref.ref(held))
            spin_until(runs.wrote_stacks())

        def work() -> bool:
            inner()
            return references[0]() is None

        gc.disable()
        try:
            gone: list[bool] = []
            tasks.run(lambda: gone.append(work()), actor_name="a")
        finally:
            gc.enable()

    assert gone == [True]
