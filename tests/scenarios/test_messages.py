"""Messages as other programs send them, and the same message more than once."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from click.testing import CliRunner
from dramatiq import Message

from dramatiq_diag.cli import main
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from support import PATIENCE_S, eventually


def enqueue(tasks: Any, actor: Any, message_id: Any) -> None:
    message = Message(
        queue_name="tasks", actor_name=actor.actor_name, args=(), kwargs={}, options={}, message_id=message_id
    )
    tasks.broker.enqueue(message)


@pytest.mark.parametrize("message_id", [7, None, 1.5, ["a", 1], {"a": 1}, True])
def test_a_message_id_that_is_no_text_is_handled_as_one(bench, settings, stored, caplog, message_id):
    given = settings(task_diagnostics=["memory"], sample_rate=1.0)
    go_on = threading.Event()
    executed: list[int] = []

    def wait() -> None:
        executed.append(1)
        go_on.wait(PATIENCE_S)

    with bench(given, threads=2) as tasks:
        # When such a message runs beside another one
        actor = tasks.actor(wait, actor_name="wait")
        enqueue(tasks, actor, message_id)
        other = actor.send().message_id
        # Then both are announced as running
        eventually(
            lambda: (
                {run.status for found in (str(message_id), other) for run in stored(given).runs(found)}
                == {RunStatus.RUNNING}
            ),
            "both are announced",
        )
        go_on.set()
        tasks.finish()

    # And both have run, and are stored
    assert executed == [1, 1]
    (run,) = stored(given).runs(str(message_id))
    assert (run.status, run.overlapped_task_ids) == (RunStatus.SUCCEEDED, [other])
    assert stored(given).artifacts(str(message_id))["memory_profile"].status == ArtifactStatus.STORED
    assert [record.message for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


def test_two_runs_of_the_same_message_at_once_know_of_each_other(bench, settings, stored):
    given = settings(task_diagnostics=["memory"])
    together = threading.Barrier(2)

    with bench(given, threads=2) as tasks:
        actor = tasks.actor(lambda: together.wait(PATIENCE_S), actor_name="twice")
        for _ in range(2):
            enqueue(tasks, actor, "the-same")
        tasks.finish()

    runs = stored(given).runs("the-same")
    assert [run.overlapped_task_ids for run in runs] == [["the-same"], ["the-same"]]


def test_attempts_one_after_the_other_did_not_run_beside_themselves(bench, settings, stored):
    given = settings(task_diagnostics=["memory"])

    with bench(given) as tasks:
        task_id = tasks.run(lambda: 1 / 0, actor_name="fails", max_retries=2)

    assert [run.overlapped_task_ids for run in stored(given).runs(task_id)] == [[], [], []]


def test_what_is_being_collected_is_not_said_to_be_missing(bench, settings, stored, monkeypatch):
    given = settings(task_diagnostics=["memory"])
    go_on = threading.Event()
    monkeypatch.setenv("DRAMATIQ_DIAG_DATA_DIR", str(given.data_dir))
    with bench(given) as tasks:
        message = tasks.actor(lambda: go_on.wait(PATIENCE_S), actor_name="wait").send()
        eventually(lambda: stored(given).runs(message.message_id), "it is announced")
        results = [
            CliRunner().invoke(main, command, catch_exceptions=False).output
            for command in (
                ["show", message.message_id],
                ["report", message.message_id, "memory"],
                ["compare", message.message_id, message.message_id],
            )
        ]
        go_on.set()
        tasks.finish()

    for result in results:
        assert "goes on. If it is collected, it appears when the run has ended." in result
        assert "was not collected" not in result
