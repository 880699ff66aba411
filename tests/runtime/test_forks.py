"""A process that a task forks: it has nothing of ours that works no more without our threads."""

from __future__ import annotations

import gc
import json
import logging
import multiprocessing
import os
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from dramatiq_diag.runtime.gc_pause import GcPause
from dramatiq_diag.statuses import RunStatus
from support import eventually

KINDS = ["memory", "pyinstrument", "memray", "debug-logs"]


def forked(work: Callable[[], Any]) -> Any:
    """Calls a function in a process that is forked here. Returns: What it returned there."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later: there are other threads.
        pid = os.fork()
    if not pid:
        try:
            os.write(writer, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return json.loads(text)


def interpreter() -> list[Any]:
    gc.collect()
    return [len(gc.callbacks), gc.isenabled(), sys.getswitchinterval()]


def test_a_forked_process_has_the_interpreter_s_settings_as_they_were(bench, settings, stored):
    found, seen = interpreter(), []

    def forks() -> None:
        eventually(lambda: sys.getswitchinterval() < found[-1], "the sampler shortened the switch interval")
        pauses = [GcPause(), GcPause()]  # As while memray starts or stops on another thread.
        for pause in pauses:
            pause.begin()
        seen.append(forked(interpreter))
        for pause in pauses:
            pause.end()

    with bench(settings(task_diagnostics=KINDS)) as tasks:
        tasks.run(forks)

    assert seen == [found]


def test_a_choice_of_the_application_stays_in_a_forked_process(bench, settings):
    found, seen = sys.getswitchinterval(), []

    def forks() -> None:
        gc.disable()
        sys.setswitchinterval(0.02)
        seen.append(forked(interpreter))

    try:
        with bench(settings(task_diagnostics=KINDS)) as tasks:
            tasks.run(forks)
    finally:
        gc.enable()
        sys.setswitchinterval(found)

    assert seen == [[len(gc.callbacks), False, pytest.approx(0.02)]]


def test_a_forked_process_that_comes_back_out_of_the_task_leaves_its_run_alone(bench, settings, stored):
    """The run's end, its log and its other files are those of the process that runs the task."""
    given = settings(task_diagnostics=KINDS)

    def come_back(tasks: Any) -> str:
        logging.getLogger("child").warning("not of the run")
        tasks.diagnostics.process.end(RunStatus.FAILED, ValueError("not of the run"))
        return threading.current_thread().name

    with bench(given) as tasks:
        task_id = tasks.run(lambda: forked(lambda: come_back(tasks)))

    [run] = stored(given).runs(task_id)
    assert (run.status, run.exception_type) == (RunStatus.SUCCEEDED, None)
    assert b"not of the run" not in stored(given).data(task_id, "task_logs")


def double(number: int) -> int:
    return 2 * number


def test_a_pool_of_forked_processes_works_in_a_task(bench, settings, stored):
    given, found = settings(task_diagnostics=KINDS), []

    def pools() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            with multiprocessing.get_context("fork").Pool(2) as pool:
                found.extend(pool.map(double, range(5)))

    with bench(given) as tasks:
        task_id = tasks.run(pools)

    assert found == [0, 2, 4, 6, 8]
    assert [run.status for run in stored(given).runs(task_id)] == [RunStatus.SUCCEEDED]
