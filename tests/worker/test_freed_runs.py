"""A run that was saved is freed at once: as a cycle it would wait, with the task's arguments, for a full collection."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from dramatiq import Message

from dramatiq_diag.worker.run import Run
from support import PATIENCE_S, eventually
from support.tasks import finish


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def runs() -> list[Run]:
    """Returns: All runs that are in memory, also those of other tests."""
    return [found for found in gc.get_objects() if type(found) is Run]


def work() -> None:
    logging.getLogger(__name__).warning("at work")


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize("name", ["memory", "logs", "resources", "pyinstrument"])
def test_a_saved_run_does_not_wait_for_the_garbage_collector(bench: Any, settings: Any, name: str) -> None:
    before = {id(run): run for run in runs()}  # Held, so that no other object gets the id of one of them.
    with bench(settings(task_diagnostics=[name])) as tasks:
        tasks.run(work)
        eventually(lambda: all(id(run) in before for run in runs()), "the runs are freed")


@pytest.mark.usefixtures("without_collector")
def test_an_ended_run_that_waits_to_be_saved_does_not_hold_the_arguments_of_its_message(bench, settings) -> None:
    with bench(settings(task_diagnostics=["memory"])) as tasks:
        process = tasks.diagnostics.process
        tasks.run(work)
        process.saver.thread.hold(PATIENCE_S)
        large, small = tasks.actor(len, actor_name="large"), tasks.actor(work, actor_name="small")
        large.send("x" * 1_000_003)
        small.send()  # Dramatiq's thread keeps its last message until the next one.
        finish(tasks.broker, tasks.worker, "tasks")

        messages = [found for found in gc.get_objects() if type(found) is Message]
        assert [found.actor_name for found in messages if found.actor_name == "large"] == []
        assert process.saver.submitted == 3
        process.saver.thread.hold(0.0)
        tasks.finish()
