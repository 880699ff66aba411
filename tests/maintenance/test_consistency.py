"""The check: what does not fit is found and, if asked, mended."""

from __future__ import annotations

import random
import shutil
import uuid
from typing import Any

import pytest
from sqlalchemy import update

from dramatiq_diag.errors import StoreMismatchError, StoreUnavailableError
from dramatiq_diag.maintenance.consistency import Findings, check
from dramatiq_diag.statuses import ArtifactStatus
from dramatiq_diag.store.blobs.local import LocalBlobStore
from dramatiq_diag.store.models import Artifact, StoreState
from support.records import artifact_record, bundle, put_blob


@pytest.fixture
def published(store):
    """Thirty runs, with an artifact that has a blob and one that has none."""
    bundles = [
        bundle(
            None,
            artifact_record(bytes([number]) * (number * 100 + 1)),
            artifact_record(None, name="memray_profile", status=ArtifactStatus.SKIPPED, reason="busy"),
        )
        for number in range(30)
    ]
    store.publish(bundles)
    return bundles


def artifact_of(stored: Any, given: Any, each: Any) -> Artifact:
    return stored(given).artifacts(each.run.task_id)["memory_profile"]


def test_a_store_that_was_left_alone_is_whole(store, published):
    findings = check(store)

    assert findings == Findings()
    assert not findings


def test_every_artifact_is_read(store, published):
    seen: list[int] = []

    check(store, on_blob=seen.append)

    assert seen == list(range(1, 31))


def test_a_vandalised_store_is_found_out_and_mended(store, given, published, stored):
    # Given a store in which files were removed, cut, changed and added
    chaos = random.Random(4)
    victims = chaos.sample(published, 12)
    paths = {each.run.task_id: stored(given).path(each.run.task_id, "memory_profile") for each in published}
    ids = {each.run.task_id: str(artifact_of(stored, given, each).artifact_id) for each in published}
    missing, cut, changed, grown = (victims[start : start + 3] for start in (0, 3, 6, 9))
    for each in missing:
        paths[each.run.task_id].unlink()
    for each in cut:
        paths[each.run.task_id].write_bytes(b"")
    for each in changed:
        data = bytearray(paths[each.run.task_id].read_bytes())
        data[chaos.randrange(len(data))] ^= 1
        paths[each.run.task_id].write_bytes(data)
    for each in grown:
        paths[each.run.task_id].write_bytes(paths[each.run.task_id].read_bytes() + b"x")
    day = paths[published[0].run.task_id].parent
    unknown = sorted(f"{day.name}/{uuid.uuid4()}" for _ in range(3))
    for name in unknown:
        (store.blobs.root / name).write_bytes(b"who am I")
    (day / "notes.txt").write_text("nobody's business")

    # When it is checked
    findings = check(store)

    # Then each is found, for what it is, and nothing else
    assert sorted(findings.missing_blobs) == sorted(ids[each.run.task_id] for each in missing)
    assert sorted(findings.damaged_blobs) == sorted(ids[each.run.task_id] for each in (*cut, *changed, *grown))
    assert sorted(findings.unknown_blobs) == unknown
    assert check(store) == findings

    # When it is mended, the same is reported
    assert check(store, fix=True) == findings

    # Then the store is whole, the rows say what happened, and the others are as they were
    assert check(store) == Findings()
    for each in published:
        artifact = artifact_of(stored, given, each)
        if each in victims:
            assert artifact.status == ArtifactStatus.FAILED
            assert ("missing" if each in missing else "damaged") in artifact.reason
        else:
            assert artifact.status == ArtifactStatus.STORED
            assert stored(given).data(each.run.task_id, "memory_profile") == each.artifacts[0].open().read()
    assert (day / "notes.txt").read_text() == "nobody's business"
    assert [path.name for path in day.iterdir() if path.name in {name.partition("/")[2] for name in unknown}] == []


def test_a_row_that_names_no_file_is_missing_one(store, given, published, stored):
    with store.session() as session:
        session.execute(
            update(Artifact)
            .where(Artifact.artifact_id == artifact_of(stored, given, published[0]).artifact_id)
            .values(blob_name=None)
        )

    assert len(check(store).missing_blobs) == 1
    check(store, fix=True)
    assert not check(store)


def test_a_link_in_place_of_a_blob_is_damage(store, given, published, stored, tmp_path):
    path = stored(given).path(published[0].run.task_id, "memory_profile")
    copy = tmp_path / "copy"
    path.rename(copy)
    path.symlink_to(copy)

    assert len(check(store).damaged_blobs) == 1


def test_a_blob_that_is_published_while_the_store_is_mended_is_not_lost(store, given, published, stored, monkeypatch):
    # Given a run that is published just between the look for unknown blobs and their removal
    late = bundle()
    blob = put_blob(store, late)
    original = store.exclusive

    def publish_first() -> Any:
        store.publish([late])
        return original()

    monkeypatch.setattr(store, "exclusive", publish_first)

    # When the store is mended
    findings = check(store, fix=True)

    # Then its blob was seen as unknown, and is there
    assert findings.unknown_blobs == [blob.name]
    assert stored(given).data(late.run.task_id, "memory_profile") == b"0.000\t1.000\n"
    assert not check(store)


def test_a_blob_whose_row_is_on_its_way_is_not_a_finding(store, published):
    late = bundle()
    put_blob(store, late)

    assert not check(store, sleep=lambda _: store.publish([late]))


def test_an_artifact_that_expires_while_it_is_checked_is_not_a_finding(store, given, published, monkeypatch):
    original = LocalBlobStore.size_bytes

    def expire_first(blobs: LocalBlobStore, name: str) -> int | None:
        with store.session() as session:
            session.execute(
                update(Artifact).where(Artifact.blob_name == name).values(status=ArtifactStatus.EXPIRED, reason="old")
            )
        blobs.delete([name])
        return original(blobs, name)

    monkeypatch.setattr(LocalBlobStore, "size_bytes", expire_first)

    assert check(store).missing_blobs == []


@pytest.mark.parametrize("fix", [False, True])
def test_halves_of_two_stores_are_refused(store, given, published, fix):
    with store.session() as session:
        session.execute(update(StoreState).values(store_id=uuid.uuid4()))
    before = sorted(found.name for found in store.blobs.scan())

    with pytest.raises(StoreMismatchError):
        check(store, fix=fix)

    assert sorted(found.name for found in store.blobs.scan()) == before


def test_blobs_that_are_lost_are_given_up_when_one_says_so(store, given, published, stored):
    shutil.rmtree(given.blob_dir)

    # Given an empty blob directory, a check refuses
    with pytest.raises(StoreMismatchError, match="--blobs-lost"):
        check(store, fix=True)

    # When it is told that the blobs are lost
    findings = check(store, fix=True, blobs_lost=True)

    # Then the rows say so, and the store is whole and in use again
    assert len(findings.missing_blobs) == 30
    assert {artifact_of(stored, given, each).status for each in published} == {ArtifactStatus.FAILED}
    store.publish([bundle()])
    assert not check(store)


def test_a_blob_directory_that_goes_away_during_a_check_costs_no_artifact(store, given, published, stored):
    def vanish(number: int) -> None:
        if number == 3:
            given.blob_dir.rename(given.blob_dir.with_name("away"))

    with pytest.raises(StoreUnavailableError):
        check(store, fix=True, on_blob=vanish)

    given.blob_dir.with_name("away").rename(given.blob_dir)
    assert {artifact_of(stored, given, each).status for each in published} == {ArtifactStatus.STORED}
    assert not check(store)
