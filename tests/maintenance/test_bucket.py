"""Cleanup, check and uninstall of a store whose blobs are in a bucket, with the refusals that a directory has."""

from __future__ import annotations

import io
import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner

from dramatiq_diag import Settings
from dramatiq_diag.cli.doctor_checks import Status, examine
from dramatiq_diag.errors import StoreMismatchError, StoreUnavailableError
from dramatiq_diag.maintenance.cleanup import Cleanup, Counts
from dramatiq_diag.maintenance.consistency import check
from dramatiq_diag.maintenance.uninstall import Removal
from dramatiq_diag.statuses import ArtifactStatus
from dramatiq_diag.store.store import Store
from support.blobs import put_one
from support.records import artifact_record, bundle, run_record
from support.store import FakeClock, files

HOUR = timedelta(hours=1)


@pytest.fixture(params=["s3", "azure", "google"])
def given(request: pytest.FixtureRequest, settings: Any) -> Settings:
    made: Settings = settings(
        blob_url=request.getfixturevalue(f"{request.param}_bucket"), orphan_protection_time=3600, run_retention=7200
    )
    return made


def publish(store: Store, count: int) -> list[str]:
    """Returns: The ids of the tasks."""
    now = datetime.now(UTC)
    bundles = [
        bundle(run_record(started_at=now, finished_at=now), artifact_record(b"x" * (number + 1)))
        for number in range(count)
    ]
    store.publish(bundles)
    return [each.run.task_id for each in bundles]


def test_what_is_old_ends_and_what_is_young_stays(store: Store, given: Settings, stored: Any, clock: FakeClock) -> None:
    old = publish(store, 25)
    orphan = put_one(store.blobs, uuid.uuid4(), io.BytesIO(b"x" * 100)).name
    clock.ahead = 1.5 * HOUR
    young = publish(store, 3)

    would = Cleanup(store, dry_run=True).run()
    counts = Cleanup(store, expiry_batch_size=10).run()

    assert counts == would == Counts(expired_artifacts=25, removed_blobs=26, freed_bytes=25 * 26 // 2 + 100)
    assert orphan not in files(store)
    assert len(files(store)) == 3
    assert {stored(given).artifacts(task_id)["memory_profile"].status for task_id in old} == {ArtifactStatus.EXPIRED}
    assert all(stored(given).data(task_id, "memory_profile") for task_id in young)
    assert not stored(given).check()


def test_publishing_again_replaces_and_leaves_one_blob(store: Store, stored: Any, given: Settings) -> None:
    run = run_record()
    for data in (b"0 1\n", b"0 1\n2 2\n"):
        store.publish([bundle(run, artifact_record(data))])

    assert len(files(store)) == 1
    assert stored(given).data(run.task_id, "memory_profile") == b"0 1\n2 2\n"
    assert not check(store)


def test_what_does_not_fit_is_found_and_mended(store: Store, given: Settings, stored: Any) -> None:
    missing, damaged, whole = publish(store, 3)
    rows = {task_id: stored(given).artifacts(task_id)["memory_profile"] for task_id in (missing, damaged, whole)}
    store.blobs.delete([rows[missing].blob_name])
    day = datetime.strptime(rows[damaged].blob_name[:8], "%Y%m%d").replace(tzinfo=UTC).date()
    put_one(store.blobs, rows[damaged].artifact_id, io.BytesIO(b"yy"), day)
    unknown = put_one(store.blobs, uuid.uuid4(), io.BytesIO(b"x")).name

    for fix in (False, True):
        findings = check(store, fix=fix)
        assert findings.missing_blobs == [str(rows[missing].artifact_id)]
        assert findings.damaged_blobs == [str(rows[damaged].artifact_id)]
        assert findings.unknown_blobs == [unknown]

    assert not check(store)
    assert files(store) == [rows[whole].blob_name]


def test_a_bucket_of_another_database_is_refused(store: Store, given: Settings, settings: Any, store_of: Any) -> None:
    publish(store, 1)
    other = store_of(settings(data_dir=given.data_dir.with_name("other"), blob_url=given.blob_url))

    for step in (lambda: Cleanup(other).run(), lambda: check(other, fix=True), lambda: publish(other, 1)):
        with pytest.raises((StoreMismatchError, StoreUnavailableError), match="belong to store"):
            step()
    with pytest.raises(StoreMismatchError, match="belong to store"):
        Removal(other.settings).look()
    assert len(files(store)) == 1


def test_a_bucket_that_was_emptied_is_refused_until_someone_says_it_is_lost(store: Store) -> None:
    publish(store, 2)
    store.blobs.delete(files(store))
    store.blobs.remove_root()

    for step in (lambda: Cleanup(store).run(), lambda: check(store, fix=True)):
        with pytest.raises(StoreMismatchError, match="is empty"):
            step()
    with pytest.raises(StoreUnavailableError, match="is away"):
        publish(store, 1)

    assert len(check(store, fix=True, blobs_lost=True).missing_blobs) == 2
    assert not check(store)


def test_everything_of_ours_goes(store: Store, given: Settings) -> None:
    publish(store, 5)
    store.close()

    assert Removal(given).look().has_blobs
    Removal(given).run(lambda _: None)

    assert not Removal(given).look()
    assert store.blobs.read_id() is None


def test_doctor_says_whether_the_bucket_answers(store: Store, given: Settings, settings: Any) -> None:
    def blobs_of(found: Settings) -> Any:
        return next(each for each in examine(found) if each.name == "blobs")

    assert blobs_of(given).status is Status.OK
    away = blobs_of(settings(blob_url=str(given.blob_url).replace("/some", "-away/some")))
    assert away.status is Status.FINDING
    assert "docs/object-stores.md" in away.remedy


def test_the_commands_work_on_a_bucket(
    store: Store, given: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    from dramatiq_diag.cli import main

    (task_id,) = publish(store, 1)
    for name in ("data_dir", "blob_url"):
        monkeypatch.setenv(Settings.variable(name), str(getattr(given, name)))

    result = CliRunner().invoke(main, ["artifacts", task_id, "--download", str(tmp_path / "out"), "--json"])

    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["artifacts"][0]["status"] == "stored"
    assert (tmp_path / "out" / "memory.datum").read_bytes() == b"x"
