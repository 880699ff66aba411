"""The process dies between any two system calls that matter; afterwards nothing is lost, and nothing is there twice."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select
from sqlalchemy.engine import Engine

from dramatiq_diag import Settings
from dramatiq_diag.maintenance.cleanup import Cleanup
from dramatiq_diag.maintenance.consistency import check
from dramatiq_diag.spool.delivery import Delivery
from dramatiq_diag.spool.directory import Spool
from dramatiq_diag.statuses import DOWNLOADABLE_STATUSES, ArtifactStatus, RunStatus
from dramatiq_diag.store.models import Artifact, TaskRun
from dramatiq_diag.store.store import Store

#: What changes the disk. A process that dies before reading, or before a sync, leaves what it leaves at the next call.
CALLS = ("open", "write", "ftruncate", "utime", "link", "rename", "unlink", "mkdir", "rmdir")

RUN_IDS = [uuid.UUID(int=number, version=4) for number in range(1, 4)]
#: Something is attached to the first run: an entry of its own, which is complete before the run's.
ATTACHMENT_ID = uuid.UUID(int=4, version=4)
OWNER_IDS = [ATTACHMENT_ID, *RUN_IDS]
CAPTURE = b"capture " * 1000
DIED = 9

#: Each test is so many, for several processes: one dies after 0, 4, 8 calls and so on, the next after 1, 5, 9.
PARTS = 4


class Reaper:
    """Ends the process in place of a call, once so many of them were made; nothing is flushed, as with SIGKILL."""

    def __init__(self, calls: int) -> None:
        self.left = calls
        for name in CALLS:
            setattr(os, name, self._counted(name, getattr(os, name)))
        event.listen(Engine, "commit", self._count)

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            if name != "open" or arguments[1] & (os.O_CREAT | os.O_TRUNC):
                self._count()
            return call(*arguments, **options)

        return counted

    def _count(self, *_: Any) -> None:
        self.left -= 1
        if self.left < 0:
            os._exit(DIED)


def dies_after(calls: int, work: Callable[[], None]) -> bool:
    """Does the work in a process that dies after so many calls. Returns: Whether it died before it was done."""
    child = os.fork()
    if child == 0:
        try:
            Reaper(calls)
            work()
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, DIED), "the work failed by itself"
    return status == DIED


def seal(spool: Spool, run_id: uuid.UUID) -> list[Any]:
    """A run that has ended, with a text artifact and a file. Returns: Its entry, behind that of what was attached."""
    entry = begin(spool, run_id, run_id)
    attached = [] if run_id != RUN_IDS[0] else [complete(begin(spool, run_id, ATTACHMENT_ID), "running")]
    if attached:
        entry.append({"attached": True})
    return [*attached, complete(entry, "succeeded")]


def begin(spool: Spool, run_id: uuid.UUID, owner_id: uuid.UUID) -> Any:
    """The entry of a run, or of what is attached to it, with its first record."""
    entry = spool.entry()
    entry.run_id, ready = owner_id, entry._prefix
    entry._prefix = f"{entry.owner}/{owner_id}."
    os.rename(f"{ready}entry", f"{entry._prefix}entry")
    declared = [
        {"name": "memory_profile", "filename": "memory.datum", "media_type": "text/plain"},
        {"name": "memray_profile", "filename": "memray.bin", "media_type": "application/octet-stream"},
    ]
    start = {
        "run_id": str(run_id),
        "task_id": f"task-{run_id}",
        "actor_name": "work",
        "queue_name": "default",
        "started_at": datetime.now(UTC).isoformat(),
        "hostname": "host",
        "pid": 1,
        "artifacts": declared,
    }
    entry.append({"run": start if owner_id == run_id else {**start, "attachment_id": str(owner_id)}})
    entry.flush()
    return entry


def complete(entry: Any, status: str) -> Any:
    """Completes an entry."""
    end = {"status": status, "finished_at": datetime.now(UTC).isoformat(), "duration_ms": 1.0}
    entry.append({"to": "memory_profile", "text": f"0.000\t{entry.run_id.int}\n"}, {"end": end})
    entry.flush()
    entry.close()
    entry.path("memray_profile").write_bytes(CAPTURE + entry.run_id.bytes)
    entry.path("memray_profile").chmod(0o600)
    return entry


def publish(settings: Settings) -> None:
    """A worker's life, as far as it concerns the disk."""
    spool = Spool(settings)
    spool.open()
    entries = [entry for run_id in RUN_IDS for entry in seal(spool, run_id)]
    with closing(Store(settings)) as store:
        store.open()
        Delivery(spool, store).deliver(entries)
    spool.close()


def seal_and_die(settings: Settings) -> None:
    """A worker that dies before it publishes anything."""
    spool = Spool(settings)
    spool.open()
    for run_id in RUN_IDS:
        seal(spool, run_id)
    os._exit(DIED)


def salvage(settings: Settings) -> None:
    with closing(Store(settings)) as store:
        store.open()
        Delivery(Spool(settings), store).salvage()


def clean(settings: Settings) -> None:
    with closing(Store(settings)) as store:
        Cleanup(store).run()


@pytest.fixture(scope="module")
def fresh_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data dir with a store in it, which is closed."""
    store = Store(Settings(data_dir=tmp_path_factory.mktemp("fresh"), cleanup_interval=0))
    store.open()
    store.close()
    return store.settings.data_dir


@pytest.fixture
def crash_settings(fresh_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Settings]:
    """Settings with a store of their own each time; it is made beforehand, and copied."""

    def make(**values: Any) -> Settings:
        data_dir = tmp_path_factory.mktemp("crash") / "data"
        shutil.copytree(fresh_store, data_dir)
        return Settings(data_dir=data_dir, cleanup_interval=0, **values)

    return make


def rows(store: Store) -> dict[tuple[uuid.UUID, str], Artifact]:
    """Returns: The id of a run, or of what was attached to it, and a name -> the artifact."""
    with store.session() as session:
        found = session.execute(select(Artifact)).scalars().all()
    known = {(artifact.attachment_id or artifact.run_id, artifact.name): artifact for artifact in found}
    assert len(known) == len(found)
    return known


def stored_rows(store: Store) -> dict[tuple[uuid.UUID, str], tuple[str | None, str | None]]:
    """What is reported stored now, with its blob and its hash; each blob is there and whole."""
    found = {
        key: (artifact.blob_name, artifact.sha256)
        for key, artifact in rows(store).items()
        if artifact.status in DOWNLOADABLE_STATUSES
    }
    assert all(store.blobs.sha256(str(name)) == sha256 for name, sha256 in found.values())
    return found


def assert_all_is_well(store: Store, sealed: int) -> None:
    """Every run that was sealed is stored once, with both artifacts, whole; the spool and the blob root are clean.

    What was attached to one has been complete before it, and is stored as well.
    """
    assert not check(store)
    with store.session() as session:
        runs = {run.run_id: run for run in session.execute(select(TaskRun)).scalars()}
    complete = [run_id for run_id, run in runs.items() if run.status == RunStatus.SUCCEEDED]
    assert len(complete) >= sealed
    artifacts = rows(store)
    for owner_id in (*complete, *([ATTACHMENT_ID] if RUN_IDS[0] in complete else [])):
        memory, capture = artifacts[owner_id, "memory_profile"], artifacts[owner_id, "memray_profile"]
        assert memory.sha256 == hashlib.sha256(f"0.000\t{owner_id.int}\n".encode()).hexdigest()
        if capture.status == ArtifactStatus.STORED:
            assert capture.sha256 == hashlib.sha256(CAPTURE + owner_id.bytes).hexdigest()
    # No run is left running for what was attached to it, in whichever order both were published.
    assert {run.status for run in runs.values()} <= {RunStatus.SUCCEEDED, RunStatus.INTERRUPTED}
    assert Spool(store.settings).written_at() == []


def sealed_runs(store: Store) -> int:
    """How many runs a dead process left sealed in the spool, or had published."""
    ended = [path for path in store.settings.spool.glob("*/*.entry") if b'{"end":' in path.read_bytes()]
    with store.session() as session:
        published = set(session.execute(select(TaskRun.run_id)).scalars())
    return len(published | {uuid.UUID(path.stem) for path in ended} - {ATTACHMENT_ID})


@pytest.mark.parametrize("first", range(PARTS))
def test_a_publisher_that_dies_anywhere_loses_nothing(crash_settings, first):
    calls = first
    while True:
        settings = crash_settings()
        died = dies_after(calls, lambda settings=settings: publish(settings))
        with closing(Store(settings)) as store:
            reported, sealed = stored_rows(store), sealed_runs(store)

            salvage(settings)

            assert_all_is_well(store, sealed)
            kept = stored_rows(store)
        assert {key: kept[key][1] for key in reported} == {key: sha256 for key, (_, sha256) in reported.items()}
        if not died:
            break
        calls += PARTS
    assert calls > 40
    assert len(reported) == 2 * len(OWNER_IDS)


@pytest.mark.parametrize("first", range(PARTS))
def test_a_salvager_that_dies_anywhere_leaves_it_to_the_next(crash_settings, first):
    calls = first
    while True:
        settings = crash_settings()
        assert dies_after(1000, lambda settings=settings: seal_and_die(settings))
        died = dies_after(calls, lambda settings=settings: salvage(settings))
        with closing(Store(settings)) as store:
            reported = stored_rows(store)

            salvage(settings)

            assert_all_is_well(store, len(RUN_IDS))
            assert reported.keys() <= stored_rows(store).keys()
        if not died:
            break
        calls += PARTS
    assert calls > 30


@pytest.mark.parametrize("first", range(PARTS))
def test_a_cleanup_that_dies_anywhere_is_finished_by_the_next(crash_settings, first):
    calls = first
    while True:
        settings = crash_settings(orphan_protection_time=0)
        with closing(Store(settings)) as store:
            publish(settings)
            before = stored_rows(store)
            store.close()  # No connection goes through the fork.
            died = dies_after(calls, lambda settings=settings: clean(settings))
            stored_rows(store)  # What is still reported stored is there, and whole.

            clean(settings)

            assert not check(store)
            assert {artifact.status for artifact in rows(store).values()} == {ArtifactStatus.EXPIRED}
            assert rows(store).keys() == before.keys()
            assert list(store.blobs.scan()) == []
        if not died:
            break
        calls += PARTS
    assert calls >= len(before) + 1  # Each blob, and the commit before them.
