"""The contract of a blob store, over each of them: whole or not at all, under one root, and nobody else's business."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import uuid
from datetime import UTC, datetime
from functools import partial
from typing import BinaryIO

import pytest

from dramatiq_diag.errors import BlobMissingError, StoreMismatchError, StoreUnavailableError
from dramatiq_diag.store.blobs.base import BlobStore, NewBlob, RootId
from dramatiq_diag.store.blobs.local import LocalBlobStore
from dramatiq_diag.store.blobs.objects import PART_BYTES
from support.blobs import put_one
from support.object_stores import patient_blobs
from support.store import Breaks, replaced_meanwhile

STORE_ID = uuid.uuid4()


@pytest.fixture(params=["directory", "s3", "azure", "google"])
def unclaimed(request, tmp_path) -> BlobStore:
    if request.param == "directory":
        return LocalBlobStore(tmp_path / "blobs")
    return patient_blobs(request.getfixturevalue(f"{request.param}_bucket"))


@pytest.fixture
def blobs(unclaimed):
    unclaimed.claim(STORE_ID)
    return unclaimed


def put(blobs: BlobStore, data: bytes = b"data", artifact_id: uuid.UUID | None = None) -> str:
    return put_one(blobs, artifact_id or uuid.uuid4(), io.BytesIO(data)).name


def names(blobs: BlobStore) -> list[str]:
    return [found.name for found in blobs.scan()]


@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 1, PART_BYTES, 2 * PART_BYTES + 1])
def test_what_was_put_comes_back(blobs, size):
    data = os.urandom(size)
    artifact_id = uuid.uuid4()

    blob = put_one(blobs, artifact_id, io.BytesIO(data))

    assert blob.size_bytes == size == blobs.size_bytes(blob.name)
    assert blob.sha256 == hashlib.sha256(data).hexdigest() == blobs.sha256(blob.name)
    assert blob.name.endswith(f"/{artifact_id}")
    with blobs.open(blob.name) as file:
        assert file.read() == data
    assert names(blobs) == [blob.name]


def test_several_at_once_come_back_in_order(blobs):
    texts = [b"", b"one", b"x" * 100_000]
    day = datetime(2026, 1, 2, tzinfo=UTC).date()
    made = [NewBlob(artifact_id=uuid.uuid4(), open=partial(io.BytesIO, text), day=day) for text in texts]

    put_blobs = blobs.put(made)

    assert [blob.name for blob in put_blobs] == [f"20260102/{new.artifact_id}" for new in made]
    assert blobs.sizes_bytes([*(blob.name for blob in put_blobs), f"20260102/{uuid.uuid4()}"]) == [0, 3, 100_000, None]
    for blob, text in zip(put_blobs, texts, strict=True):
        assert (blob.size_bytes, blob.sha256) == (len(text), hashlib.sha256(text).hexdigest())
        assert blobs.sha256(blob.name) == blob.sha256
    assert blobs.put([]) == []


def test_putting_again_replaces(blobs):
    artifact_id = uuid.uuid4()
    put(blobs, b"first", artifact_id)
    name = put(blobs, b"second", artifact_id)

    assert names(blobs) == [name]
    with blobs.open(name) as file:
        assert file.read() == b"second"


@pytest.mark.parametrize("size", [100, PART_BYTES + 1])
def test_a_put_that_fails_leaves_what_was_there(blobs, size):
    artifact_id = uuid.uuid4()
    name = put(blobs, b"whole", artifact_id)

    for each in (artifact_id, uuid.uuid4()):
        with pytest.raises(StoreUnavailableError, match="Input/output error"):
            put_one(blobs, each, Breaks(b"x" * size))

    assert names(blobs) == [name]
    with blobs.open(name) as file:
        assert file.read() == b"whole"


def test_a_blob_has_the_name_of_its_day_and_is_found_there(blobs):
    old, new = datetime(2020, 1, 2, tzinfo=UTC).date(), datetime(2026, 1, 2, tzinfo=UTC).date()
    for day in (new, old):
        put_one(blobs, uuid.uuid4(), io.BytesIO(b"data"), day)

    found = [*blobs.scan()]

    assert [file.name.partition("/")[0] for file in found] == ["20200102", "20260102"]
    for file in found:
        assert (file.name.partition("/")[2], file.size_bytes, file.suffix) == (str(file.artifact_id), 4, "")
        assert file.is_blob
        assert abs(datetime.now(UTC).timestamp() - file.modified_at) < 60


def test_a_part_is_read_from_any_place(blobs):
    data = os.urandom(10_000_000)
    with blobs.open(put(blobs, data)) as file:
        for start, length in ((0, 1), (9_999_990, 100), (4_000_000, 5_000_000), (10_000_000, 1), (3, 0)):
            assert file.seek(start) == start
            assert file.read(length) == data[start : start + length]
        assert file.seek(0, os.SEEK_END) == len(data)
        assert file.seek(-5, os.SEEK_CUR) == len(data) - 5
        assert file.read() == data[-5:]


def test_a_missing_blob_is_said(blobs):
    for name in (f"20260101/{uuid.uuid4()}", "20260101/x", ".store-id", "../x", ""):
        for ask in (blobs.open, blobs.sha256):
            with pytest.raises(BlobMissingError):
                ask(name)
        assert blobs.size_bytes(name) is None
        blobs.delete([name])
    assert blobs.store_id() == STORE_ID


def test_deleting_is_repeatable(blobs):
    gone = [put(blobs, b"x" * 10), put(blobs, b"x" * 5)]
    kept = put(blobs)

    for _ in range(2):
        blobs.delete(gone)
        assert names(blobs) == [kept]


def test_what_a_scan_found_is_deleted_and_its_bytes_are_counted(blobs):
    for size in (10, 5):
        put(blobs, b"x" * size)

    assert blobs.delete_found([*blobs.scan()]) == 15
    assert list(blobs.scan()) == []


def test_a_store_that_was_never_used_is_empty(unclaimed):
    assert list(unclaimed.scan()) == []
    assert unclaimed.store_id() is None
    assert unclaimed.read_id() is None
    unclaimed.remove_empty_days()
    unclaimed.delete([f"20260101/{uuid.uuid4()}"])
    with pytest.raises(StoreUnavailableError, match="is away"):
        unclaimed.verify(STORE_ID)
    with pytest.raises(StoreUnavailableError, match="is away"):
        unclaimed.size_bytes(f"20260101/{uuid.uuid4()}")
    with pytest.raises(StoreUnavailableError, match="is away"):
        unclaimed.open(f"20260101/{uuid.uuid4()}")


def test_only_an_empty_root_is_claimed_and_only_once(unclaimed):
    first, second = uuid.uuid4(), uuid.uuid4()

    unclaimed.claim(first)
    unclaimed.claim(second)

    assert unclaimed.store_id() == first


def test_an_id_is_replaced_only_on_purpose(blobs):
    first = blobs.read_id()
    other = RootId(store_id=STORE_ID, root_id=uuid.uuid4())

    blobs.write_id(other)
    assert blobs.read_id() == first
    blobs.write_id(other, replace=True)
    assert blobs.read_id() == other
    with pytest.raises(StoreMismatchError, match="claimed for the same store"):
        blobs.verify(STORE_ID, first.root_id)


def test_the_rest_of_a_root_is_removed(blobs):
    blobs.delete([put(blobs)])
    for _ in range(2):
        blobs.remove_root()
        assert blobs.read_id() is None


def test_a_root_with_blobs_and_no_id_is_not_claimed(blobs):
    put(blobs)
    blobs.remove_root()

    blobs.claim(uuid.uuid4())

    assert blobs.store_id() is None


def test_many_processes_claiming_agree(unclaimed):
    ids = [uuid.uuid4() for _ in range(8)]
    threads = [threading.Thread(target=unclaimed.claim, args=(store_id,)) for store_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert unclaimed.store_id() in ids


def test_another_stores_root_is_refused(blobs):
    with pytest.raises(StoreMismatchError, match=str(STORE_ID)):
        blobs.verify(uuid.uuid4())


def test_two_writers_of_one_blob_leave_one_of_them_whole(blobs):
    artifact_id = uuid.uuid4()
    versions = [bytes([number]) * 300_000 for number in range(4)]
    name = put(blobs, versions[0], artifact_id)
    with replaced_meanwhile(blobs, artifact_id, versions):
        read = [_read_or_none(blobs.open(name)) for _ in range(20)]
    assert {data in (None, *versions) for data in read} == {True}
    assert any(read)


def _read_or_none(file: BinaryIO) -> bytes | None:
    """Returns: The content; None where another version came before it was read, which a bucket says."""
    with file:
        try:
            return file.read()
        except StoreUnavailableError:
            return None
