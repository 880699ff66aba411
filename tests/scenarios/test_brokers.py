"""Brokers: one contract in this process, then Dramatiq's command line from end to end."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import dramatiq
import pytest

from dramatiq_diag import Diagnostics
from dramatiq_diag.statuses import DOWNLOADABLE_STATUSES, ArtifactStatus, RunStatus
from support import eventually
from support.tasks import finish

ALL_THREE = ["memory", "pyinstrument", "memray"]
EXPECTED_STATUS = {"fail": RunStatus.FAILED}


def test_tasks_of_every_broker_leave_their_artifacts(broker, queue_name, settings, run_worker, stored):
    # Given a broker with the middleware
    given = settings(task_diagnostics=ALL_THREE)
    broker.add_middleware(Diagnostics(given))
    calls: Counter[int] = Counter()

    @dramatiq.actor(broker=broker, queue_name=queue_name, max_retries=2)
    def work(number: int) -> None:
        calls[number] += 1
        if number == 7 and calls[number] == 1:
            raise ValueError(number)

    # When tasks run, one of them twice
    with run_worker(broker, threads=4) as worker:
        ids = [work.send(number).message_id for number in range(20)]
        finish(broker, worker, queue_name)

    # Then each has its run, and each run its three artifacts
    assert sum(calls.values()) == 21
    for number, task_id in enumerate(ids):
        runs = stored(given).runs(task_id)
        assert [run.status for run in runs] == (["failed"] if number == 7 else []) + ["succeeded"]
        assert {run.queue_name for run in runs} == {queue_name}
        assert len(stored(given).artifacts(task_id)) == 3
    assert not stored(given).check()


def test_a_message_chooses_its_diagnostics_on_every_broker(broker, queue_name, settings, run_worker, stored):
    given = settings(task_diagnostics=["memory"], task_diagnostics_on_request=["pyinstrument"])
    broker.add_middleware(Diagnostics(given))

    @dramatiq.actor(broker=broker, queue_name=queue_name)
    def work() -> None:
        return None

    with run_worker(broker) as worker:
        usual = work.send().message_id
        chosen = work.send_with_options(diagnostics=["pyinstrument"]).message_id
        none = work.send_with_options(diagnostics=[]).message_id
        finish(broker, worker, queue_name)

    assert set(stored(given).artifacts(usual)) == {"memory_profile"}
    assert set(stored(given).artifacts(chosen)) == {"pyinstrument_profile"}
    assert stored(given).runs(none) == []


@pytest.mark.parametrize(
    ("database_url", "broker_kind", "options"),
    [
        pytest.param("sqlite", "redis_url", [], id="sqlite-redis-fork"),
        pytest.param("postgresql", "redis_url", [], id="postgresql-redis-fork"),
        pytest.param("postgresql", "rabbitmq_url", ["--use-spawn"], id="postgresql-rabbitmq-spawn"),
    ],
    indirect=["database_url"],
)
def test_the_command_line_leaves_every_artifact_of_200_tasks(
    request, broker_kind, options, database_url, settings, stored, command_line
):
    # Given two worker processes of four threads each, and 200 messages of a mix of actors
    given = settings(task_diagnostics=ALL_THREE, database_url=database_url)
    given.data_dir.mkdir()
    command = command_line(request.getfixturevalue(broker_kind), given)
    sent = command.send(200)
    command.start("--processes", "2", "--threads", "4", *options)
    reader = stored(given)

    # When all are done, and the workers are told to stop
    def ended() -> bool:
        assert command.process.poll() is None, command.log.read_text()
        ids = Counter(run.task_id for run in reader.all_runs() if run.status in ("succeeded", "failed"))
        return all(ids[task_id] >= (2 if actor == "retry" else 1) for actor, task_id in sent)

    eventually(ended, "200 tasks have their runs stored")
    assert command.stop() == 0

    # Then each task has its runs, and each run its three artifacts, whole
    runs = reader.all_runs()
    by_task: dict[str, list[Any]] = {}
    for run in reversed(runs):
        by_task.setdefault(run.task_id, []).append(run)
    assert set(by_task) == {task_id for _, task_id in sent}
    assert len({run.pid for run in runs}) == 2
    found = Counter()
    reasons = Counter()
    for actor, task_id in sent:
        statuses = [run.status for run in by_task[task_id]]
        assert statuses == (["failed", "succeeded"] if actor == "retry" else [EXPECTED_STATUS.get(actor, "succeeded")])
        for attempt in range(1, len(statuses) + 1):
            artifacts = reader.artifacts(task_id, attempt)
            assert set(artifacts) == {"memory_profile", "pyinstrument_profile", "memray_profile"}
            for name, artifact in artifacts.items():
                found[name, artifact.status] += 1
                reasons[name, artifact.status, (artifact.reason or "").partition(" held by ")[0]] += 1
                assert (artifact.reason is None) == (artifact.status == ArtifactStatus.STORED)
                if artifact.status in DOWNLOADABLE_STATUSES:
                    data = reader.data(task_id, name, attempt)
                    assert len(data) == artifact.size_bytes
                    assert hashlib.sha256(data).hexdigest() == artifact.sha256
    assert found["memory_profile", "stored"] == found["pyinstrument_profile", "stored"] == len(runs) == 240
    assert found["memray_profile", "stored"] > 0
    assert found["memray_profile", "stored"] + found["memray_profile", "skipped"] == 240, reasons

    # And nothing is left over: no finding, no spool entry, no complaint of ours in the log
    assert not reader.check()
    assert list(given.spool.iterdir()) == []
    log = command.log.read_text()
    complaints = [
        line
        for line in log.splitlines()
        if "dramatiq_diag" in line and any(w in line for w in ("WARN", "ERROR", "CRIT"))
    ]
    assert complaints == []
    assert "ResourceWarning" not in log


def test_a_killed_worker_process_is_salvaged_by_the_next_start(
    redis_url, database_url, settings, stored, command_line, queue_name
):
    # Given workers that are killed in the middle of their work
    given = settings(task_diagnostics=ALL_THREE, database_url=database_url)
    given.data_dir.mkdir()
    command = command_line(redis_url, given)
    command.send(100)
    command.start("--processes", "2", "--threads", "4")
    reader = stored(given)
    eventually(lambda: len(reader.all_runs()) >= 5, "a few tasks are done")
    command.kill()
    dead = set(given.spool.iterdir())

    # When workers are started again, and have published what the dead ones left
    command.start("--processes", "1", "--threads", "4")
    eventually(lambda: dead.isdisjoint(given.spool.iterdir()), "the directories of the dead are gone from the spool")
    command.stop()

    # Then every run that began is stored with all its artifacts, none twice
    runs = reader.all_runs()
    assert {run.status for run in runs} <= {"succeeded", "failed", "interrupted"}
    for run in runs:
        attempts = [attempt for attempt in reader.runs(run.task_id) if attempt.run_id == run.run_id]
        assert len(attempts) == 1
        assert len(reader.artifacts(run.task_id, attempts[0].attempt)) == 3
    assert list(given.spool.iterdir()) == []
    assert not reader.check()
