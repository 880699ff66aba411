"""Names of blobs in the database that are not ours: no part of the package makes a path of one."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from dramatiq_diag import Settings
from dramatiq_diag.cli.download import download
from dramatiq_diag.errors import BlobMissingError
from dramatiq_diag.maintenance.cleanup import Cleanup
from dramatiq_diag.maintenance.consistency import check
from dramatiq_diag.statuses import ArtifactStatus
from dramatiq_diag.store import pins as keeping
from dramatiq_diag.store.models import Artifact
from dramatiq_diag.store.records import artifact_id
from dramatiq_diag.store.store import Store
from support.records import artifact_record, bundle, run_record

KEPT = b"the private key of somebody\n"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file beside the store that nobody may read or remove through it."""
    path = tmp_path / "victim"
    path.write_bytes(KEPT)
    return path


@pytest.fixture(
    params=["absolute", "upwards", "in a day", "another day", "rendered", "of the root", "with an end of line"]
)
def name(request: pytest.FixtureRequest, victim: Path, tmp_path: Path) -> str:
    blobs = tmp_path / "data" / "blobs"
    (blobs / "20260101").mkdir(parents=True, exist_ok=True)
    (blobs / "20260101" / "note").write_bytes(KEPT)
    (blobs / "note").write_bytes(KEPT)
    return {
        "absolute": str(victim),
        "upwards": "../../victim",
        "in a day": "20260101/note",
        "another day": "20260101/../../../victim",
        "rendered": f"20260101/{uuid.uuid4()}.rendered",
        "of the root": "note",
        "with an end of line": f"20260101/{uuid.uuid4()}\n",
    }[request.param]


@pytest.fixture
def store(settings: Callable[..., Settings], store_of: Callable[[Settings], Store], name: str) -> Store:
    """A store with one artifact, whose row has a name that is not ours."""
    store = store_of(settings(orphan_protection_time=0))
    if store.blobs.store_id() is None:
        (store.blobs.root / ".store-id").write_text(f"{store.store_id()}\n")
    now = datetime.now(UTC) - timedelta(seconds=5)
    run = run_record(run_id=RUN_ID, task_id="t", started_at=now, finished_at=now)
    store.publish([bundle(run, artifact_record(KEPT, name="task_logs", filename="task.log"))])
    with store.session() as session:
        session.execute(update(Artifact).values(blob_name=name))
    return store


RUN_ID = uuid.UUID(int=7)


def _artifact(store: Store) -> Artifact:
    with store.session() as session:
        found = session.get(Artifact, artifact_id(RUN_ID, "task_logs"))
    assert found is not None
    return found


def test_the_blobs_know_no_such_file(store: Store, name: str, victim: Path) -> None:
    blobs = store.blobs
    for read in (blobs.open, blobs.sha256):
        with pytest.raises(BlobMissingError):
            read(name)
    with pytest.raises(BlobMissingError):
        blobs.sync([name])
    assert blobs.size_bytes(name) is None
    blobs.delete([name])
    assert victim.read_bytes() == KEPT
    assert (blobs.root / "note").read_bytes() == KEPT


def test_it_is_not_downloaded(store: Store, tmp_path: Path) -> None:
    with pytest.raises(BlobMissingError):
        download(store, _artifact(store), tmp_path / "target", lambda _: None)
    assert not (tmp_path / "target").exists()


def test_it_is_not_served(store: Store, victim: Path) -> None:
    from falcon.testing import TestClient

    from dramatiq_diag.documents.signing import Signer
    from dramatiq_diag.web import create_app

    app = create_app(store.settings, insecure=True)
    client = TestClient(app, headers={"Host": "localhost"})
    artifact = _artifact(store)
    try:
        answers = [
            client.simulate_get(Signer(store.settings).url_path(str(artifact.artifact_id), artifact.filename)),
            client.simulate_get(f"/artifacts/{artifact.artifact_id}/reports/plain"),
            client.simulate_get("/tasks/t/", headers={"Accept": "text/html"}),
        ]
        assert [answer.status_code for answer in answers] == [410, 404, 200]
        assert not any(KEPT.decode().strip() in answer.text for answer in answers)
    finally:
        app.close()


def test_the_check_says_that_it_is_missing(store: Store, victim: Path) -> None:
    assert len(check(store).missing_blobs) == 1
    check(store, fix=True)
    assert check(store).missing_blobs == []
    assert victim.read_bytes() == KEPT


@pytest.mark.parametrize("ends", ["cleanup", "delete"])
def test_it_is_not_removed(store: Store, name: str, victim: Path, ends: str) -> None:
    if ends == "cleanup":
        Cleanup(store).run()
    else:
        keeping.delete(store, RUN_ID)
    assert _artifact(store).status in (ArtifactStatus.EXPIRED, ArtifactStatus.DELETED)
    assert victim.read_bytes() == KEPT
    assert (store.blobs.root / "note").read_bytes() == KEPT
    assert (store.blobs.root / "20260101" / "note").read_bytes() == KEPT
