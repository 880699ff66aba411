"""A spool that is full or cannot be written."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from dramatiq.middleware import TimeLimitExceeded

from dramatiq_diag.collectors.names import all_names
from dramatiq_diag.spool.directory import Spool
from dramatiq_diag.spool.entry import ENTRY_SUFFIX
from dramatiq_diag.spool.reader import read_finished_run
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.worker.tuning import Tuning
from support import PATIENCE_S
from support.spool import END, TEXT, dead_entry, start_record, without_powers
from support.tasks import finish


def test_a_full_spool_declines_with_a_reason_and_throws_nothing_away(settings, bench, stored):
    given = settings(task_diagnostics=list(all_names()), spool_max_bytes=1000)
    calls: list[int] = []

    # Given a spool that is past its limit by what somebody left in it
    run_id = uuid.uuid4()
    left = dead_entry(given.spool, [start_record(run_id, pid=-1), TEXT, END, "x" * 2000], run_id)

    with bench(given) as tasks:
        process = tasks.diagnostics.process
        process.spool.measure()
        assert process.spool.full
        task_id = tasks.run(lambda: calls.append(1), actor_name="work")

    # Then the task ran, each artifact says why there is none, and what was there still is
    assert calls == [1]
    artifacts = stored(given).artifacts(task_id)
    assert len(artifacts) == len(all_names())
    assert {artifact.status for artifact in artifacts.values()} == {ArtifactStatus.SKIPPED}
    assert all("DRAMATIQ_DIAG_SPOOL_MAX_BYTES" in artifact.reason for artifact in artifacts.values())
    assert Path(left.path(ENTRY_SUFFIX)).exists()


def test_an_unwritable_spool_harms_no_task_and_publishes_from_memory(settings, bench, stored, tmp_path, caplog):
    (tmp_path / "a file").touch()
    given = settings(task_diagnostics=list(all_names()), spool_dir=tmp_path / "a file" / "spool")
    calls: list[int] = []

    with bench(given) as tasks:
        ids = [tasks.run(lambda: calls.append(1), actor_name=f"work{number}") for number in range(3)]

    # The tasks ran, the log says once what is wrong and what to do, and what needs no file is stored
    assert calls == [1, 1, 1]
    ours = (record for record in caplog.records if record.name.startswith("dramatiq_diag"))
    [said] = [record for record in ours if record.levelname != "INFO"]
    assert "DRAMATIQ_DIAG_SPOOL_DIR" in said.getMessage()
    assert said.exc_info is None
    for task_id in ids:
        assert stored(given).runs(task_id)[0].status == RunStatus.SUCCEEDED
        artifacts = stored(given).artifacts(task_id)
        assert artifacts["memory_profile"].status == ArtifactStatus.STORED
        assert artifacts["memray_profile"].status == ArtifactStatus.FAILED
        assert artifacts["pyinstrument_profile"].status == ArtifactStatus.FAILED
        assert artifacts["memray_profile"].reason
    assert not stored(given).check()


_WORK_THRICE = """
import logging, sys
import dramatiq
from dramatiq import Worker
from dramatiq.brokers.stub import StubBroker
from dramatiq_diag import Diagnostics, Settings

logging.basicConfig(level=logging.WARNING)
given = Settings(data_dir=sys.argv[1], spool_dir=sys.argv[2], task_diagnostics=["memory", "logs"], cleanup_interval=0)
diagnostics = Diagnostics(given)
broker = StubBroker(middleware=[diagnostics])
actor = dramatiq.actor(lambda: None, broker=broker, actor_name="work")
worker = Worker(broker)
worker.start()
for _ in range(3):
    actor.send()
broker.join("default")
print(diagnostics.flush(30))
worker.stop()
"""


def test_a_spool_of_another_user_keeps_no_run_from_the_store(settings, stored, tmp_path):
    spool = tmp_path / "spool"
    spool.mkdir(mode=0o700)
    os.chown(spool, 12345, 12345)
    given = settings()

    done = subprocess.run(
        without_powers(sys.executable, "-c", _WORK_THRICE, str(given.data_dir), str(spool)),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )

    assert done.stdout == "True\n", done.stderr
    assert "Until then diagnostics are held in memory." in done.stderr
    assert "stays in the spool" not in done.stderr
    runs = stored(given).all_runs()
    assert [run.status for run in runs] == [RunStatus.SUCCEEDED] * 3
    for run in runs:
        artifacts = stored(given).artifacts(run.task_id)
        assert {artifact.status for artifact in artifacts.values()} == {ArtifactStatus.STORED}


def test_a_spool_that_becomes_writable_is_used(settings, stub_broker, run_worker, stored, tmp_path):
    import dramatiq

    from dramatiq_diag import Diagnostics

    obstacle = tmp_path / "a file"
    obstacle.touch()
    given = settings(task_diagnostics=["memory"], spool_dir=obstacle / "spool")
    diagnostics = Diagnostics(given, tuning=Tuning(measure_s=0.01))
    stub_broker.add_middleware(diagnostics)
    actor = dramatiq.actor(lambda: None, broker=stub_broker, actor_name="work")

    with run_worker(stub_broker) as worker:
        first = actor.send().message_id
        finish(stub_broker, worker, "default")
        obstacle.unlink()
        while diagnostics.process.spool.owner is None:
            assert diagnostics.flush(PATIENCE_S)
            actor.send()
            finish(stub_broker, worker, "default")
        last = actor.send().message_id
        finish(stub_broker, worker, "default")

    assert {stored(given).runs(task_id)[0].status for task_id in (first, last)} == {"succeeded"}
    assert list(given.spool.iterdir()) == []


def test_a_disk_that_takes_no_more_loses_no_record(spool, monkeypatch):
    entry = spool.entry()
    entry.append(start_record(entry.run_id))
    entry.flush()

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    entry.append(TEXT)
    entry.append(END)
    monkeypatch.undo()
    entry.close()

    bundle = read_finished_run(entry)
    assert bundle.run.status == RunStatus.SUCCEEDED
    assert bundle.artifacts[0].open().read() == TEXT["text"].encode()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", [1, 2])
def test_an_interrupt_in_a_write_loses_no_record_and_doubles_none(spool, monkeypatch, when, step):
    entry, write, calls = spool.entry(), os.write, []

    # Given an interrupt that strikes before or right after the system call
    def struck(descriptor: int, data: bytes) -> int:
        calls.append(1)
        if when == "before" and len(calls) == step:
            raise TimeLimitExceeded
        count = write(descriptor, data)
        if len(calls) == step:
            raise TimeLimitExceeded
        return count

    monkeypatch.setattr("dramatiq_diag.spool.entry.os.write", struck)

    # When a run begins and ends, and the end goes on after the interrupt
    def begin() -> None:
        entry.append({"number": 1})
        entry.append({"number": 2})
        entry.flush()

    def end() -> None:
        entry.buffer()
        entry.append({"number": 3})
        entry.flush()

    for stage in (begin, end):
        try:
            stage()
        except TimeLimitExceeded:
            if stage is end:
                entry.flush()

    # Then each record is there once
    monkeypatch.undo()
    assert [record["number"] for record in entry.records()] == [1, 2, 3]
    entry.close()
    entry.remove(())


def test_what_json_cannot_hold_is_refused_where_it_is_appended(spool):
    entry = spool.entry()
    entry.append({"number": 1})

    with pytest.raises(TypeError):
        entry.append({"number": object()})

    entry.flush()
    assert list(entry.records()) == [{"number": 1}]
    entry.close()
    entry.remove(())


def test_removing_what_is_abandoned_keeps_what_is_young_or_alive(spool, settings):
    given = settings()
    run_ids = [uuid.uuid4() for _ in range(2)]
    old, young = (dead_entry(given.spool, [start_record(run_id), TEXT], run_id) for run_id in run_ids)
    Path(old.path("memray_profile")).write_bytes(b"x" * 1000)
    for path in old.owner.iterdir():
        os.utime(path, (1000, 1000))
    own = spool.entry()
    own.close()
    os.utime(own.path(ENTRY_SUFFIX), (1000, 1000))
    size = sum(path.stat().st_size for path in old.owner.iterdir() if path.name != "owner.lock")

    assert [found for _, found in Spool(given).abandoned(before=2000)] == [size]
    assert list(Spool(given).remove_abandoned(before=2000)) == [size]
    assert list(Spool(given).remove_abandoned(before=2000)) == []
    assert not old.owner.exists()
    assert Path(young.path(ENTRY_SUFFIX)).exists()
    assert Path(own.path(ENTRY_SUFFIX)).exists()
    own.remove(())


def test_a_data_dir_that_a_worker_makes_is_private(settings, bench):
    given = settings(task_diagnostics=["memory"])

    with bench(given) as tasks:
        tasks.run(lambda: None, actor_name="work")

    assert stat.S_IMODE(given.data_dir.stat().st_mode) == 0o700
