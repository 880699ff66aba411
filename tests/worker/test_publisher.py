"""The publisher: everything gets there once, whatever fails in between."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import dramatiq
import pytest

from dramatiq_diag import Diagnostics
from dramatiq_diag.errors import RunRefusedError
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.store.migration import migrate
from dramatiq_diag.store.store import Store
from support import PATIENCE_S, eventually
from support.logs import is_rare
from support.tasks import finish

_WORKER = """
import os, sys, threading, time
from dramatiq import Worker, actor
from dramatiq.brokers.stub import StubBroker
from dramatiq_diag import Diagnostics, Settings

broker = StubBroker()
broker.add_middleware(Diagnostics(Settings(
    task_diagnostics=["memory"], data_dir=sys.argv[1], database_url=sys.argv[2] or None, cleanup_interval=0,
    memory_interval=0.01)))

@actor(broker=broker)
def hang():
    os.write(1, b"hanging\\n")
    while True:
        time.sleep(1)

for _ in range(4):
    print(hang.send().message_id, flush=True)
Worker(broker, worker_threads=4).start()
threading.Event().wait()
"""

_SALVAGER = """
import sys
from dramatiq import Worker
from dramatiq.brokers.stub import StubBroker
from dramatiq_diag import Diagnostics, Settings

broker = StubBroker()
broker.add_middleware(Diagnostics(Settings(
    task_diagnostics=["memory"], data_dir=sys.argv[1], database_url=sys.argv[2] or None, cleanup_interval=0)))
print("ready", flush=True)
sys.stdin.readline()
worker = Worker(broker, worker_threads=1)
worker.start()
worker.stop()
"""


def killed_worker(python: Any, given: Any) -> list[str]:
    """Starts a worker, lets it begin four tasks and kills it. Returns: The ids of the tasks."""
    process = python(_WORKER, str(given.data_dir), given.database_url or "")
    lines = [process.stdout.readline().strip() for _ in range(8)]
    process.kill()
    process.wait(PATIENCE_S)
    return [line for line in lines if line != "hanging"]


def test_publishing_again_changes_nothing(bench, settings, stored, monkeypatch, database_url):
    given = settings(task_diagnostics=["memory", "pyinstrument"], database_url=database_url)
    published: list[Any] = []
    original = Store.publish

    # Given a store that is told everything twice, as after a crash between the rows and the spool entry
    def twice(store: Store, bundles: Any) -> None:
        original(store, bundles)
        published.append(stored(given).artifacts(bundles[0].run.task_id))
        original(store, bundles)

    monkeypatch.setattr(Store, "publish", twice)

    with bench(given) as tasks:
        task_id = tasks.run(lambda: None, actor_name="work")

    assert len(stored(given).runs(task_id)) == 1
    first, second = published[0], stored(given).artifacts(task_id)
    for name in first:
        assert (first[name].artifact_id, first[name].sha256) == (second[name].artifact_id, second[name].sha256)
    assert not stored(given).check()


def test_a_database_that_is_away_gets_everything_when_it_is_back(
    postgres, settings, stub_broker, run_worker, stored, caplog
):
    began_s = time.monotonic()
    with postgres.database() as name:
        given = settings(task_diagnostics=["memory"], database_url=postgres.url(name))
        diagnostics = Diagnostics(given)
        stub_broker.add_middleware(diagnostics)
        calls: list[int] = []
        actor = dramatiq.actor(lambda: calls.append(1), broker=stub_broker, actor_name="work")

        with run_worker(stub_broker, threads=2) as worker:
            # Given a database that goes away
            before = actor.send().message_id
            finish(stub_broker, worker, "default")
            assert diagnostics.flush(PATIENCE_S)
            postgres.execute(
                f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",  # Or a new one hinders the renaming.
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
                f"ALTER DATABASE {name} RENAME TO {name}_away",
            )
            # When tasks run meanwhile
            ids = [actor.send().message_id for _ in range(20)]
            finish(stub_broker, worker, "default")
            # Then they are unharmed, and wait in the spool
            assert len(calls) == 21
            assert not diagnostics.flush(0.05)
            eventually(lambda: "sealed runs wait in the spool" in caplog.text, "a warning")
            # When it comes back, everything gets there
            postgres.execute(
                f"ALTER DATABASE {name}_away RENAME TO {name}", f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"
            )
            assert diagnostics.flush(PATIENCE_S)

        assert {run.task_id for run in stored(given).all_runs()} == {before, *ids}
        assert list(given.spool.iterdir()) == []
        assert is_rare(caplog.text.count("sealed runs wait in the spool"), began_s)
        for store in (stored(given).store,):
            store.close()


def test_a_blob_directory_that_is_away_gets_everything_when_it_is_back(bench, settings, stored, tmp_path):
    obstacle = tmp_path / "a file"
    obstacle.touch()
    given = settings(task_diagnostics=["memory"], blob_url=str(obstacle / "blobs"))
    calls: list[int] = []

    with bench(given) as tasks:
        message = tasks.actor(lambda: calls.append(1), actor_name="work").send()
        finish(tasks.broker, tasks.worker, "tasks")
        assert not tasks.diagnostics.flush(0.2)
        obstacle.unlink()
        assert tasks.diagnostics.flush(PATIENCE_S)

    assert calls == [1]
    assert stored(given).artifacts(message.message_id)["memory_profile"].status == ArtifactStatus.STORED
    assert not stored(given).check()


def test_what_is_in_memory_alone_at_the_end_does_not_wait_for_anybody(bench, settings, tmp_path, caplog):
    obstacle = tmp_path / "a file"
    obstacle.touch()
    unusable = {"spool_dir": obstacle / "spool", "blob_url": str(obstacle / "blobs")}
    given = settings(task_diagnostics=["memory"], shutdown_timeout=0.2, **unusable)

    # Given a worker that stops while neither the spool nor the store can be used
    with bench(given) as tasks:
        actor = tasks.actor(lambda: None, actor_name="work")
        for _ in range(3):
            actor.send()
        finish(tasks.broker, tasks.worker, "tasks")
        eventually(lambda: "3 wait in memory" in caplog.text, "the publisher noticed that the store is away")

    # Then it does not say that a next worker finds anything
    assert "3 runs are in memory, in whole or in part, as the disk did not take them, and end with this" in caplog.text
    assert "for the next worker" not in caplog.text


def test_what_could_not_be_published_at_the_end_waits_for_the_next_worker(
    settings, stub_broker, run_worker, stored, tmp_path, bench, caplog
):
    obstacle = tmp_path / "a file"
    obstacle.touch()
    given = settings(task_diagnostics=["memory"], blob_url=str(obstacle / "blobs"), shutdown_timeout=0.2)
    stub_broker.add_middleware(Diagnostics(given))
    actor = dramatiq.actor(lambda: None, broker=stub_broker, actor_name="work")

    # Given a worker that stops while the store is away
    with run_worker(stub_broker) as worker:
        ids = [actor.send().message_id for _ in range(3)]
        finish(stub_broker, worker, "default")
        eventually(lambda: "sealed runs wait in the spool" in caplog.text, "the publisher noticed that it is away")
    assert any("3 runs wait in the spool" in record.getMessage() for record in caplog.records)

    # When the store is back and a worker starts
    obstacle.unlink()
    with bench(replace(given, shutdown_timeout=PATIENCE_S)):
        pass

    # Then the runs are there as they ended, whole
    assert {run.task_id for run in stored(given).all_runs()} == set(ids)
    for task_id in ids:
        assert stored(given).runs(task_id)[0].status == RunStatus.SUCCEEDED
        assert stored(given).artifacts(task_id)["memory_profile"].status == ArtifactStatus.STORED
    assert list(given.spool.iterdir()) == []


def test_a_schema_that_is_behind_is_waited_for_and_said(postgres, settings, stub_broker, run_worker, stored, caplog):
    with postgres.database("template1") as name:
        given = settings(task_diagnostics=["memory"], database_url=postgres.url(name))
        diagnostics = Diagnostics(given)
        stub_broker.add_middleware(diagnostics)
        actor = dramatiq.actor(lambda: None, broker=stub_broker, actor_name="work")

        with run_worker(stub_broker) as worker:
            # Given a database without a schema
            message = actor.send()
            finish(stub_broker, worker, "default")
            eventually(lambda: [r for r in caplog.records if "dramatiq-diag migrate" in r.getMessage()], "the remedy")
            assert not diagnostics.flush(0.05)
            # When it is migrated, the run gets there without a restart
            migrate(given)
            assert diagnostics.flush(PATIENCE_S)

        assert [run.status for run in stored(given).runs(message.message_id)] == [RunStatus.SUCCEEDED]
        stored(given).store.close()


def test_one_poisonous_run_does_not_block_the_others(bench, settings, stored, monkeypatch, caplog):
    given = settings(task_diagnostics=["memory"])
    original = Store.publish

    def picky(store: Store, bundles: Any) -> None:
        if any(bundle.run.actor_name == "poison" for bundle in bundles):
            raise RunRefusedError("The database refused: no poison")
        original(store, bundles)

    monkeypatch.setattr(Store, "publish", picky)
    let_go = threading.Event()

    with bench(given, threads=4) as tasks:
        good, poison = (tasks.actor(let_go.wait, actor_name=name) for name in ("good", "poison"))
        ids = [good.send().message_id for _ in range(3)]
        bad = poison.send().message_id
        let_go.set()
        ids += [good.send().message_id for _ in range(3)]
        finish(tasks.broker, tasks.worker, "tasks")
        assert not tasks.diagnostics.flush(PATIENCE_S)
        reader = stored(given)
        assert {run.task_id for run in reader.all_runs()} == set(ids)
        assert reader.runs(bad) == []

    refusals = [record for record in caplog.records if "no poison" in record.getMessage()]
    assert len(refusals) == 1
    assert len([path for path in given.spool.rglob("*.entry") if path.stat().st_size]) == 1


def test_a_killed_worker_is_salvaged_as_interrupted(settings, stored, python, bench, database_url):
    given = settings(task_diagnostics=["memory"], database_url=database_url)

    # Given a worker that was killed in the middle of four tasks
    ids = killed_worker(python, given)

    # When another worker boots
    with bench(given):
        pass

    # Then all four are there, interrupted, with what they left
    runs = stored(given).all_runs()
    assert {run.task_id for run in runs} == set(ids)
    assert {run.status for run in runs} == {RunStatus.INTERRUPTED}
    for task_id in ids:
        artifact = stored(given).artifacts(task_id)["memory_profile"]
        assert artifact.status == ArtifactStatus.PARTIAL
        assert artifact.reason
        assert len(stored(given).data(task_id, "memory_profile").splitlines()) >= 2
    assert list(given.spool.iterdir()) == []
    assert not stored(given).check()


def test_two_salvagers_at_once_publish_nothing_twice(settings, stored, python, database_url):
    given = settings(task_diagnostics=["memory"], database_url=database_url)
    ids = killed_worker(python, given) + killed_worker(python, given)

    # When three workers boot at the same time
    salvagers = [python(_SALVAGER, str(given.data_dir), given.database_url or "") for _ in range(3)]
    for process in salvagers:
        assert process.stdout.readline() == "ready\n"
    for process in salvagers:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.wait(PATIENCE_S) for process in salvagers] == [0, 0, 0]

    # Then each run is there once, and nothing is left
    runs = stored(given).all_runs()
    assert sorted(run.task_id for run in runs) == sorted(ids)
    assert list(given.spool.iterdir()) == []
    assert not stored(given).check()


def test_a_live_workers_entries_are_never_salvaged(settings, stored, python, bench):
    given = settings(task_diagnostics=["memory"])
    process = python(_WORKER, str(given.data_dir), "")
    lines = [process.stdout.readline() for _ in range(8)]
    assert lines.count("hanging\n") == 4

    with bench(given):
        pass

    assert {run.status for run in stored(given).all_runs()} <= {RunStatus.RUNNING}
    assert len([path for path in given.spool.rglob("*.entry") if path.stat().st_size]) == 4


def test_a_blob_that_a_cleanup_took_is_put_again(bench, settings, stored, monkeypatch):
    given = settings(task_diagnostics=["memory"])
    taken: list[Path] = []
    original = Store.session

    # Given a cleanup that takes a new blob for an orphan, just before its row is there
    def session(store: Store) -> Any:
        for path in given.blob_dir.glob("*/*") if not taken else ():
            path.unlink()
            taken.append(path)
        return original(store)

    monkeypatch.setattr(Store, "session", session)

    with bench(given) as tasks:
        task_id = tasks.run(lambda: None, actor_name="work")

    assert len(taken) == 1
    assert stored(given).artifacts(task_id)["memory_profile"].status == ArtifactStatus.STORED
    assert not stored(given).check()


def test_the_publisher_survives_what_it_does_not_expect(bench, settings, stored, monkeypatch, caplog):
    given = settings(task_diagnostics=["memory"])
    failures: list[int] = []
    original = Store.publish

    def fails_once(store: Store, bundles: Any) -> None:
        if not failures:
            failures.append(1)
            raise TypeError("a bug")
        original(store, bundles)

    monkeypatch.setattr(Store, "publish", fails_once)

    with bench(given) as tasks, caplog.at_level(logging.ERROR):
        task_id = tasks.run(lambda: None, actor_name="work")

    assert [record.exc_info[0] for record in caplog.records] == [TypeError]
    assert stored(given).runs(task_id)[0].status == RunStatus.SUCCEEDED


@pytest.mark.parametrize("gone", ["the spool", "its own directory"])
def test_a_spool_that_is_removed_under_a_worker_harms_no_task(bench, settings, stored, gone):
    given = settings(task_diagnostics=["memory"])
    calls: list[int] = []

    with bench(given) as tasks:
        tasks.run(lambda: calls.append(1), actor_name="before")
        shutil.rmtree(given.spool if gone == "the spool" else tasks.diagnostics.process.spool.owner)
        task_id = tasks.run(lambda: calls.append(1), actor_name="after")

    assert calls == [1, 1]
    assert stored(given).artifacts(task_id)["memory_profile"].status == ArtifactStatus.STORED
    assert os.path.isdir(given.blob_dir)
