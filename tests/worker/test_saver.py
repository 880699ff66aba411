"""Many tasks that end at once: the runs that wait to be saved do not use up the files and the memory of the process."""

from __future__ import annotations

import os

from dramatiq_diag.statuses import ArtifactStatus
from dramatiq_diag.worker.tuning import Tuning
from support import PATIENCE_S
from support.tasks import finish, running_bench

NAMES = ["memory", "logs"]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_runs_that_wait_to_be_saved_have_few_open_files_and_lose_nothing(settings, stored):
    given = settings(task_diagnostics=NAMES)
    with running_bench(given, threads=4, tuning=Tuning(max_open=10)) as tasks:
        process = tasks.diagnostics.process
        tasks.run(lambda: None, actor_name="first")
        # Given a saver that does nothing for a while
        process.saver.thread.hold(PATIENCE_S)
        before = open_files()
        actor = tasks.actor(lambda: None, actor_name="work")
        ids = [actor.send().message_id for _ in range(300)]
        finish(tasks.broker, tasks.worker, "tasks")

        # Then 300 ended runs have a few open files: ten, and of those that ended meanwhile on four threads
        assert open_files() - before < 30

        # And when it goes on, all is stored
        process.saver.thread.hold(0.0)
        assert tasks.diagnostics.flush(PATIENCE_S)
    for task_id in ids:
        artifacts = stored(given).artifacts(task_id)
        assert {name: artifact.status for name, artifact in artifacts.items()} == {
            "memory_profile": ArtifactStatus.STORED,
            "task_logs": ArtifactStatus.STORED,
        }


def test_while_too_many_wait_no_task_is_diagnosed_and_the_log_says_so(settings, stored, caplog):
    given = settings(task_diagnostics=NAMES)
    calls: list[int] = []
    with running_bench(given, tuning=Tuning(max_waiting=20)) as tasks:
        process = tasks.diagnostics.process
        tasks.run(lambda: None, actor_name="first")
        process.saver.thread.hold(PATIENCE_S)
        actor = tasks.actor(lambda: calls.append(1), actor_name="work")
        ids = [actor.send().message_id for _ in range(50)]
        finish(tasks.broker, tasks.worker, "tasks")
        process.saver.thread.hold(0.0)
        assert tasks.diagnostics.flush(PATIENCE_S)
        after = tasks.run(lambda: None, actor_name="after")

    assert len(calls) == 50
    found = [stored(given).runs(task_id) for task_id in ids]
    assert [len(runs) for runs in found] == [1] * 20 + [0] * 30
    assert (
        "Tasks ended faster than their diagnostics could be saved: about 30 of them were not diagnosed." in caplog.text
    )
    assert stored(given).artifacts(after)["memory_profile"].status == ArtifactStatus.STORED
