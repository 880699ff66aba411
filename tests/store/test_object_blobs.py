"""What only object stores have: pages, other people's objects, signed URLs, forks, and errors of a bucket."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dramatiq_diag import Settings
from dramatiq_diag.errors import BlobMissingError, NotInstalledError, SettingsError, StoreUnavailableError
from dramatiq_diag.store.blobs.headers import file_headers
from dramatiq_diag.store.blobs.objects import ObjectBlobStore
from support import PATIENCE_S
from support.blobs import put_one
from support.object_stores import patient_blobs


@pytest.fixture(params=["s3", "azure"])
def bucket(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"{request.param}_bucket")
    return url


@pytest.fixture
def blobs(bucket: str) -> ObjectBlobStore:
    blobs = patient_blobs(bucket)
    blobs.claim(uuid.uuid4())
    return blobs


def put(blobs: ObjectBlobStore, data: bytes = b"data", **options: Any) -> str:
    return put_one(blobs, uuid.uuid4(), io.BytesIO(data), **options).name


def client_of(url: str) -> Any:
    from obstore.store import from_url

    return from_url(url, client_options={"allow_http": True})


def test_a_scan_sees_what_is_ours_and_nothing_else(blobs: ObjectBlobStore, bucket: str) -> None:
    names = [put(blobs) for _ in range(3)]
    client = client_of(bucket)
    for foreign in ("README", "20260101/notes.txt", f"20260101/{uuid.uuid4()}.backup", f"x/20260101/{uuid.uuid4()}"):
        client.put(foreign, b"mine")
    client_of(bucket.rpartition("/")[0]).put(f"prefix-of-others/20260101/{uuid.uuid4()}", b"mine")

    assert [found.name for found in blobs.scan()] == sorted(names)
    blobs.delete_found([*blobs.scan()])
    blobs.remove_root()

    assert len([meta for page in client.list() for meta in page]) == 4


def test_more_blobs_than_a_page_are_listed_and_deleted(s3_bucket: str) -> None:
    blobs = patient_blobs(s3_bucket)
    client = client_of(s3_bucket)
    names = sorted(f"20260101/{uuid.uuid4()}" for _ in range(1050))
    with ThreadPoolExecutor(8) as pool:
        assert len([*pool.map(lambda name: client.put(name, b"x"), names)]) == 1050

    assert [found.name for found in blobs.scan()] == names
    assert blobs.delete_found([*blobs.scan()]) == 1050
    assert [*blobs.scan()] == []


def test_deleting_goes_on_behind_a_blob_that_is_gone(blobs: ObjectBlobStore) -> None:
    names = sorted(put(blobs) for _ in range(3))
    blobs.delete(names[:1])

    blobs.delete(names)

    assert [*blobs.scan()] == []


def test_a_blob_that_was_replaced_is_not_read_on(blobs: ObjectBlobStore) -> None:
    artifact_id = uuid.uuid4()
    name = put_one(blobs, artifact_id, io.BytesIO(b"a" * 5_000_000)).name
    with blobs.open(name) as file:
        assert file.read(10) == b"a" * 10
        put_one(blobs, artifact_id, io.BytesIO(b"b" * 5_000_000))
        file.seek(4_900_000)
        with pytest.raises(StoreUnavailableError):
            file.read(10)
    with blobs.open(name) as file:
        blobs.delete([name])
        with pytest.raises((BlobMissingError, StoreUnavailableError)):  # Azure says that it is another one.
            file.read(10)


def test_a_signed_url_gives_the_blob_with_its_headers(blobs: ObjectBlobStore) -> None:
    headers = file_headers("text/plain", "memory.datum")
    url = blobs.signed_url(put(blobs, b"0 1\n", headers=headers), 60)
    assert url is not None

    with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
        assert answer.read() == b"0 1\n"
        assert {name: answer.headers[name] for name in headers} == headers


def test_a_bucket_that_is_not_there_is_said(bucket: str) -> None:
    blobs = patient_blobs(bucket.replace("/some", "-away/some"))
    for step in (lambda: blobs.claim(uuid.uuid4()), lambda: put(blobs), blobs.see_root):
        with pytest.raises(StoreUnavailableError, match=r"no such bucket|is away|cannot be read"):
            step()


def test_an_id_that_is_none_is_said(blobs: ObjectBlobStore, bucket: str) -> None:
    client_of(bucket).put(".store-id", b"no uuid")

    with pytest.raises(StoreUnavailableError, match="store-id"):
        blobs.store_id()


def test_wrong_keys_are_said_and_not_shown(s3_bucket: str, azure_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0c2VjcmV0c2VjcmV0")
    with pytest.raises(StoreUnavailableError) as caught:
        ObjectBlobStore(azure_bucket).store_id()
    assert "c2VjcmV0" not in str(caught.value)
    assert "\n" not in str(caught.value)


FORKS = """
import io, os, signal, sys, uuid
from dramatiq_diag.errors import StoreUnavailableError
from dramatiq_diag.store.blobs.base import NewBlob
from dramatiq_diag.store.blobs.objects import ObjectBlobStore

def child(use):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            use()
            os._exit(0)
        except StoreUnavailableError as error:
            os._exit(7 if "was forked from process" in str(error) else 8)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def use(blobs):
    blobs.put([NewBlob(artifact_id=uuid.uuid4(), open=lambda: io.BytesIO(b"data"))])

made = ObjectBlobStore(sys.argv[1])
fresh = lambda: use(ObjectBlobStore(sys.argv[1]))
print(child(lambda: use(made)), child(fresh))
use(made)
print(child(lambda: use(made)), child(fresh))
use(made)
"""


def test_a_process_that_was_forked_after_a_use_refuses_and_never_hangs(s3_bucket: str) -> None:
    command = [sys.executable, "-c", FORKS, s3_bucket]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, env=os.environ, check=True)
    assert result.stdout.split() == ["0", "0", "7", "7"]


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3://b",
        "s3:///prefix",
        "s3://Bucket/prefix",
        "s3://bucket:9000/prefix",
        "s3://bucket/a//b",
        "s3://bucket/../b",
        "s3://bucket/prefix?region=x",
        "s3://bucket/prefix#x",
        "gs://bucket/pre fix",
        "az://bucket/pre\nfix",
        "ftp://bucket/prefix",
        "s4://bucket/prefix",
    ],
)
def test_a_wrong_url_fails_at_once(url: str) -> None:
    with pytest.raises(SettingsError, match="DRAMATIQ_DIAG_BLOB_URL"):
        Settings(blob_url=url)


@pytest.mark.parametrize("url", ["s3://bucket", "s3://my.bucket-1/a/b_c/", "gs://my_bucket/x", "az://container/x=1"])
def test_the_url_of_a_bucket_is_a_setting(url: str) -> None:
    given = Settings(blob_url=url)
    assert given.blob_url == url.rstrip("/")
    assert given.blob_dir is None


def test_without_obstore_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(SettingsError, match=r"pip install 'dramatiq_diag\[object-store\]'"):
        Settings(blob_url="s3://bucket/prefix")
    with pytest.raises(NotInstalledError, match=r"pip install 'dramatiq_diag\[object-store\]'"):
        ObjectBlobStore("s3://bucket/prefix")
