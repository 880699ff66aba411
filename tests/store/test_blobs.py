"""The blob store: whole or not at all, under one root, and nobody else's business."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
import sys
import time
import uuid
from typing import BinaryIO

import pytest

from dramatiq_diag.errors import StoreUnavailableError
from dramatiq_diag.store.blobs.base import NewBlob
from dramatiq_diag.store.blobs.local import LocalBlobStore
from support.blobs import put_one
from support.store import Breaks, replaced_meanwhile

STORE_ID = uuid.uuid4()


@pytest.fixture
def unclaimed(tmp_path):
    return LocalBlobStore(tmp_path / "blobs")


@pytest.fixture
def blobs(unclaimed):
    unclaimed.claim(STORE_ID)
    return unclaimed


def put(blobs: LocalBlobStore, data: bytes = b"data", artifact_id: uuid.UUID | None = None) -> str:
    return put_one(blobs, artifact_id or uuid.uuid4(), io.BytesIO(data)).name


def test_blobs_are_private(blobs):
    path = blobs.root / put(blobs)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_put_that_fails_leaves_nothing(blobs):
    with pytest.raises(StoreUnavailableError, match="Input/output error"):
        put_one(blobs, uuid.uuid4(), Breaks(b"x" * 100))

    assert [path.name for path in blobs.root.rglob("*") if path.is_file()] == [".store-id"]


def test_of_several_blobs_none_is_there_before_all_are_written(blobs):
    first = NewBlob(artifact_id=uuid.uuid4(), open=lambda: io.BytesIO(b"first"))
    breaks = NewBlob(artifact_id=uuid.uuid4(), open=lambda: Breaks(b"x" * 100))

    with pytest.raises(StoreUnavailableError, match="Input/output error"):
        blobs.put([first, breaks])
    assert [path.name for path in blobs.root.rglob("*") if path.is_file()] == [".store-id"]

    kept = put(blobs, b"kept", first.artifact_id)
    with pytest.raises(ZeroDivisionError):
        blobs.put([first, NewBlob(artifact_id=uuid.uuid4(), open=lambda: 1 / 0)])
    assert [found.name for found in blobs.scan()] == [kept]
    with blobs.open(kept) as file:
        assert file.read() == b"kept"


def test_a_blob_has_its_name_only_after_its_sync(blobs, monkeypatch):
    synced, real = [], os.fsync

    def fsync(descriptor):
        synced.append([found.is_blob for found in blobs.scan()])
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    blobs.put([NewBlob(artifact_id=uuid.uuid4(), open=lambda: io.BytesIO(b"data")) for _ in range(2)])

    assert [sorted(are_blobs) for are_blobs in synced] == [[False, False], [False, True]]
    assert [found.is_blob for found in blobs.scan()] == [True, True]


def test_a_reader_never_sees_half_a_blob(blobs):
    artifact_id = uuid.uuid4()
    versions = [bytes([number]) * 3_000_000 for number in range(4)]
    name = put(blobs, versions[0], artifact_id)
    with replaced_meanwhile(blobs, artifact_id, versions):
        for _ in range(50):
            with blobs.open(name) as file:
                assert file.read() in versions


def test_a_link_in_place_of_a_blob_is_not_followed(blobs, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    name = put(blobs)
    (blobs.root / name).unlink()
    (blobs.root / name).symlink_to(secret)

    with pytest.raises(StoreUnavailableError):
        blobs.open(name)
    assert list(blobs.scan()) == []


def test_a_scan_sees_what_is_ours_and_nothing_else(blobs):
    name = put(blobs)
    day = (blobs.root / name).parent
    (blobs.root / f"{name}.rendered").mkdir()  # Of version 663677e.
    temporary = day / f"{uuid.uuid4()}.{'0' * 32}.tmp"
    temporary.touch()
    foreign = [
        blobs.root / "README",
        day / "notes.txt",
        day / f"{uuid.uuid4()}.backup",
        blobs.root / "20269" / str(uuid.uuid4()),
        day / str(uuid.uuid4()).upper() / "x",
    ]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    (day / str(uuid.uuid4())).mkdir()

    found = {file.name: file for file in blobs.scan()}

    assert set(found) == {name, f"{name}.rendered", f"{day.name}/{temporary.name}"}
    assert found[name].is_blob
    assert found[f"{name}.rendered"].is_rendered
    assert not found[f"{day.name}/{temporary.name}"].is_blob


def test_a_root_that_went_away_is_not_made_again(blobs):
    name = put(blobs)
    away = blobs.root.rename(blobs.root.with_name("away"))

    for step in (lambda: put(blobs), lambda: blobs.open(name), lambda: blobs.size_bytes(name)):
        with pytest.raises(StoreUnavailableError):
            step()
    assert not blobs.root.exists()

    away.rename(blobs.root)
    assert blobs.size_bytes(name) == 4


def test_a_disk_that_is_not_mounted_is_not_taken_for_the_root(blobs):
    name = put(blobs)
    away = blobs.root.rename(blobs.root.with_name("away"))
    blobs.root.mkdir()

    with pytest.raises(StoreUnavailableError, match="is away"):
        blobs.verify(STORE_ID)
    with pytest.raises(StoreUnavailableError, match="is away"):
        blobs.open(name)

    blobs.root.rmdir()
    away.rename(blobs.root)
    blobs.verify(STORE_ID)


def test_a_root_that_goes_away_while_it_is_scanned_is_said(blobs):
    for day in ("20200101", "20200102"):
        (blobs.root / day).mkdir()
        (blobs.root / day / str(uuid.uuid4())).touch()

    scan = blobs.scan()
    next(scan)
    blobs.root.rename(blobs.root.with_name("away"))

    with pytest.raises(StoreUnavailableError, match="is away"):
        list(scan)


def test_a_damaged_id_is_said(unclaimed):
    unclaimed.root.mkdir()
    (unclaimed.root / ".store-id").write_text("no uuid")

    with pytest.raises(StoreUnavailableError, match="store-id"):
        unclaimed.store_id()


def test_of_many_files_the_one_that_cannot_be_removed_is_told_of(blobs):
    day = time.strftime("%Y%m%d", time.gmtime())
    (blobs.root / day).mkdir()
    names = [f"{day}/{uuid.uuid4()}" for _ in range(200)]
    for name in names:
        (blobs.root / name).write_bytes(b"data")
    (blobs.root / names[100]).unlink()
    (blobs.root / names[100]).mkdir()

    with pytest.raises(StoreUnavailableError, match="cannot be written"):
        blobs.delete(names)
    (blobs.root / names[100]).rmdir()
    blobs.delete([*names, "../outside"])

    assert list(blobs.scan()) == []


def test_the_bytes_of_many_files_are_counted_once(blobs):
    day = time.strftime("%Y%m%d", time.gmtime())
    (blobs.root / day).mkdir()
    for _ in range(200):
        (blobs.root / day / str(uuid.uuid4())).write_bytes(b"data")
    found = list(blobs.scan())

    assert blobs.delete_found(found) == 800
    assert blobs.delete_found(found) == 0
    assert list(blobs.scan()) == []


def test_empty_days_before_yesterday_go(blobs):
    name = put(blobs)
    for day in ("20200101", "20200102"):
        (blobs.root / day).mkdir()
    (blobs.root / "20200102" / "somebody's").touch()

    blobs.remove_empty_days()

    assert sorted(path.name for path in blobs.root.iterdir()) == [".store-id", "20200102", name.partition("/")[0]]


@pytest.mark.parametrize("step", ["put", "open", "scan", "claim"])
def test_a_root_that_cannot_be_used_is_said(tmp_path, step):
    (tmp_path / "a file").touch()
    blobs = LocalBlobStore(tmp_path / "a file" / "blobs")
    steps = {
        "put": lambda: put(blobs),
        "open": lambda: _close(blobs.open(f"20260101/{uuid.uuid4()}")),
        "scan": lambda: list(blobs.scan()),
        "claim": lambda: blobs.claim(uuid.uuid4()),
    }

    with pytest.raises(StoreUnavailableError, match="a file"):
        steps[step]()


def _close(file: BinaryIO) -> None:
    file.close()


# A file that is on the same disk already.


def spooled(tmp_path, data: bytes = b"data", mode: int = 0o600):
    path = tmp_path / f"spooled-{uuid.uuid4()}"
    path.write_bytes(data)
    path.chmod(mode)
    os.utime(path, (1000, 1000))
    return path


def put_file(blobs: LocalBlobStore, path, artifact_id: uuid.UUID | None = None):
    put(blobs)  # The day has a directory.
    with path.open("rb") as file:
        return put_one(blobs, artifact_id or uuid.uuid4(), file)


@pytest.mark.skipif(sys.platform != "linux", reason="a file is linked by its descriptor, through /proc")
def test_a_file_of_our_own_is_given_a_second_name(blobs, tmp_path):
    data = os.urandom(3_000_000)
    path = spooled(tmp_path, data)
    began = time.time()

    blob = put_file(blobs, path)

    status = (blobs.root / blob.name).stat()
    assert status.st_ino == path.stat().st_ino
    assert (blob.size_bytes, blob.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert status.st_mtime >= began - 1  # Its age as a blob: a cleanup leaves alone what is young.
    path.unlink()
    with blobs.open(blob.name) as file:
        assert file.read() == data


def test_putting_the_same_file_again_leaves_one_whole_blob(blobs, tmp_path):
    path, artifact_id = spooled(tmp_path), uuid.uuid4()

    put_blobs = {put_file(blobs, path, artifact_id) for _ in range(4)}

    assert len(put_blobs) == 1
    (blob,) = put_blobs
    assert blobs.sha256(blob.name) == hashlib.sha256(b"data").hexdigest()
    assert [found for found in blobs.scan() if not found.is_blob] == []


def test_what_others_may_write_or_have_linked_is_copied(blobs, tmp_path):
    shared, linked = spooled(tmp_path, mode=0o644), spooled(tmp_path)
    os.link(linked, tmp_path / "another name")

    for path in (shared, linked):
        blob = put_file(blobs, path)
        assert (blobs.root / blob.name).stat().st_ino != path.stat().st_ino
        assert stat.S_IMODE((blobs.root / blob.name).stat().st_mode) == 0o600


@pytest.mark.parametrize("error", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOENT])
def test_a_disk_that_cannot_link_gets_a_copy(blobs, tmp_path, monkeypatch, error):
    def refuse(*_args, **_options):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "link", refuse)
    path = spooled(tmp_path)

    blob = put_file(blobs, path)

    assert blobs.sha256(blob.name) == hashlib.sha256(b"data").hexdigest()
    assert (blobs.root / blob.name).stat().st_ino != path.stat().st_ino


def test_a_linked_file_that_cannot_be_synced_is_no_blob(blobs, tmp_path, monkeypatch):
    path = spooled(tmp_path)
    put(blobs)
    before = {found.name for found in blobs.scan()}

    def fail(_descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with path.open("rb") as file, pytest.raises(StoreUnavailableError):
        put_one(blobs, uuid.uuid4(), file)

    assert {found.name for found in blobs.scan()} == before
    assert path.read_bytes() == b"data"
