"""Many tasks that end at once: the runs that wait to be saved do not use up the files and the memory of the process."""

from __future__ import annotations

import os

from dramatiq_diag.statuses import ArtifactStatus
from dramatiq_diag.worker.tuning import Tuning
from support import PATIENCE_S, eventually
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


def test_while_too_many_wait_new_runs_are_declined_with_the_reason(settings, stored):
    given = settings(task_diagnostics=NAMES)
    with running_bench(given, tuning=Tuning(max_waiting=20)) as tasks:
        process = tasks.diagnostics.process
        tasks.run(lambda: None, actor_name="first")
        process.saver.thread.hold(PATIENCE_S)
        actor = tasks.actor(lambda: None, actor_name="work")
        ids = [actor.send().message_id for _ in range(50)]
        finish(tasks.broker, tasks.worker, "tasks")
        process.saver.thread.hold(0.0)
        assert tasks.diagnostics.flush(PATIENCE_S)
        eventually(lambda: not process.spool.is_behind, "it is not behind any more")
        after = tasks.run(lambda: None, actor_name="after")

    found = [stored(given).artifacts(task_id) for task_id in ids]
    skipped = [artifacts for artifacts in found if artifacts["memory_profile"].status == ArtifactStatus.SKIPPED]
    assert 20 <= len(skipped) <= 30
    assert all(
        "ended faster than they could be saved" in artifact.reason
        for artifacts in skipped
        for artifact in artifacts.values()
    )
    assert stored(given).artifacts(after)["memory_profile"].status == ArtifactStatus.STORED
