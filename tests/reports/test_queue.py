"""Reports that many ask for at once: one process each, a few at a time, and none that outlives the server."""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pytest

from dramatiq_diag.errors import BlobMissingError, NotInstalledError
from dramatiq_diag.reports.cache import format_of, open_download
from dramatiq_diag.reports.errors import RenderingInProgress, ReportError, TooManyRenderingsError
from dramatiq_diag.reports.process import TIMEOUT_S, RenderProcess
from dramatiq_diag.reports.queue import MAX_WAITING, REMEMBERED_S, RenderQueue
from dramatiq_diag.runtime.disk_cache import DiskCache
from dramatiq_diag.statuses import ArtifactStatus
from dramatiq_diag.store.blobs.local import LocalBlobStore
from dramatiq_diag.store.models import Artifact
from support import PATIENCE_S, eventually, program
from support.blobs import put_one
from support.clocks import Clock

#: The interpreter, before a fixture puts a script in its place.
PYTHON = sys.executable

LOG = b"0.000\t10.000\n2.000\t20.000\n"
CSV = b"seconds,rss_bytes\n0.000,10485760\n2.000,20971520\n"


@dataclass
class Files:
    """What has a store's files."""

    blobs: LocalBlobStore
    cache: DiskCache


class Children:
    """The processes that render: each leaves a mark, and waits while the gate is shut."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.gate = directory / "gate"
        self.ids = directory / "ids"
        self.ids.mkdir()
        self.gate.touch()

    def shut(self) -> None:
        self.gate.unlink()

    def open(self) -> None:
        self.gate.touch()

    @property
    def count(self) -> int:
        return len(list(self.ids.iterdir()))

    def alive(self) -> list[int]:
        return [int(path.name) for path in self.ids.iterdir() if Path("/proc", path.name).exists()]


@pytest.fixture
def children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Children:
    """Puts a script before the interpreter that renders."""
    made = Children(tmp_path)
    script = tmp_path / "python"
    script.write_text(
        f'#!/bin/sh\n: > {made.ids}/$$\nwhile [ ! -e {made.gate} ]; do sleep 0.02; done\nexec {sys.executable} "$@"\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(script))
    return made


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobStore:
    store = LocalBlobStore(tmp_path / "blobs")
    store.claim(uuid.uuid4())
    return store


@pytest.fixture
def files(blobs: LocalBlobStore, tmp_path: Path) -> Files:
    return Files(blobs, DiskCache(tmp_path / "cache", 1024**2))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(files: Files, clock: Clock) -> Iterator[RenderQueue]:
    made = RenderQueue(files, clock)
    yield made
    made.close()


@pytest.fixture
def publish(blobs: LocalBlobStore, tmp_path: Path) -> Callable[..., Artifact]:
    def make(data: bytes = LOG) -> Artifact:
        source = tmp_path / uuid.uuid4().hex
        source.write_bytes(data)
        artifact_id = uuid.uuid4()
        with source.open("rb") as file:
            blob = put_one(blobs, artifact_id, file)
        return Artifact(
            artifact_id=artifact_id,
            name="memory_profile",
            status=ArtifactStatus.STORED,
            filename="memory.datum",
            media_type="text/plain",
            blob_name=blob.name,
        )

    return make


def read(file: BinaryIO) -> bytes:
    with file:
        return file.read()


def ask(server: RenderQueue, artifact: Artifact, name: str = "csv", wait_s: float = PATIENCE_S) -> bytes:
    return read(server.open(artifact, format_of(artifact, name), wait_s))


def is_waiting(server: RenderQueue, artifact: Artifact, name: str = "csv") -> bool:
    with pytest.raises(RenderingInProgress) as progress:
        ask(server, artifact, name, 0)
    return progress.value.waiting


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("dramatiq_diag")]


def test_what_is_stored_is_opened_at_once_and_a_format_is_rendered_once(server, publish, children):
    artifact = publish()

    assert ask(server, artifact, "datum", 0) == LOG
    assert children.count == 0
    assert ask(server, artifact) == CSV
    assert ask(server, artifact, wait_s=0) == CSV
    assert children.count == 1


def test_those_who_ask_for_the_same_format_share_one_process(server, publish, children):
    # Given a rendering that does not end yet
    artifact = publish()
    children.shut()

    # When as many ask for it as may wait
    with ThreadPoolExecutor(MAX_WAITING) as pool:
        answers = [pool.submit(ask, server, artifact) for _ in range(MAX_WAITING)]
        eventually(lambda: children.count, "the process starts")
        assert not is_waiting(server, artifact)
        children.open()

        # Then all get it from one process
        assert {answer.result() for answer in answers} == {CSV}
    assert children.count == 1


def test_only_so_many_wait_and_the_next_one_is_told_at_once(server, publish, children):
    # Given a rendering that does not end yet, and one caller more than may wait for it
    artifact, other = publish(), publish(b"0.000\t1.000\n")
    children.shut()
    with ThreadPoolExecutor(MAX_WAITING + 1) as pool:
        callers = [pool.submit(ask, server, artifact) for _ in range(MAX_WAITING + 1)]

        # Then one of them is told how far it is, before anything was rendered
        [told] = eventually(lambda: [caller for caller in callers if caller.done()], "one does not wait")
        with pytest.raises(RenderingInProgress):
            told.result()

        # And so are two more, for the same and for another one, that would wait for a long time
        for asked in (artifact, other):
            with pytest.raises(RenderingInProgress):
                server.open(asked, format_of(asked, "csv"), PATIENCE_S)
        children.open()
        assert {caller.result() for caller in callers if caller is not told} == {CSV}

    # And somebody may wait again
    assert ask(server, other)


def test_each_blob_and_each_format_is_a_rendering_of_its_own(server, publish, children):
    one, other = publish(), publish(b"0.000\t1.000\n")

    assert ask(server, one) != ask(server, other)
    assert ask(server, one, "chart").startswith(b"{")
    assert children.count == 3


def test_whoever_asks_too_early_is_told_how_far_it_is(server, publish, children, clock):
    artifact = publish()
    children.shut()
    assert not is_waiting(server, artifact)
    clock.now_s += 7

    with pytest.raises(RenderingInProgress, match="ask again") as progress:
        ask(server, artifact, wait_s=0)

    assert (progress.value.elapsed_s, progress.value.limit_s) == (7, TIMEOUT_S)
    children.open()
    assert ask(server, artifact) == CSV


def test_two_are_rendered_at_a_time_and_the_others_wait_in_line(server, publish, children):
    artifacts = [publish() for _ in range(5)]
    children.shut()

    waiting = [is_waiting(server, artifact) for artifact in artifacts]

    assert waiting == [False, False, True, True, True]
    eventually(lambda: children.count == 2, "two processes start")
    assert sorted(threads()) == ["dramatiq_diag.report_0", "dramatiq_diag.report_1"]
    children.open()
    assert [ask(server, artifact) for artifact in artifacts] == [CSV] * 5
    assert children.count == 5
    server.close()
    assert threads() == []


def test_when_too_many_wait_the_next_one_is_refused_and_those_who_share_are_not(files, publish, children):
    server = RenderQueue(files, max_jobs=4)
    artifacts = [publish() for _ in range(4)]
    children.shut()
    for artifact in artifacts:
        is_waiting(server, artifact)

    with pytest.raises(TooManyRenderingsError, match="Too many"):
        ask(server, publish())

    assert is_waiting(server, artifacts[-1])
    assert ask(server, artifacts[0], "datum", 0) == LOG
    server.close()


def test_a_failure_is_told_to_all_and_not_tried_again_for_a_minute(server, publish, children, clock):
    artifact = publish(b"nothing")
    children.shut()
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(ask, server, artifact) for _ in range(4)]
        eventually(lambda: children.count, "the process starts")
        children.open()
        errors = [answer.exception() for answer in answers]
    assert all(isinstance(error, ReportError) and "no sample" in str(error) for error in errors)

    clock.now_s += REMEMBERED_S - 1
    with pytest.raises(ReportError, match="no sample"):
        ask(server, artifact, wait_s=0)
    assert children.count == 1

    clock.now_s += 1
    with pytest.raises(ReportError, match="no sample"):
        ask(server, artifact)
    assert children.count == 2


def test_a_missing_package_is_named_to_all(server, publish, monkeypatch, tmp_path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nprintf \"pip install 'dramatiq_diag[web]'\" >&2\nexit 4\n")
    script.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(script))
    artifact = publish()

    for _ in range(2):
        with pytest.raises(NotInstalledError, match="pip install"):
            ask(server, artifact, "svg")


def test_a_blob_that_is_gone_is_missing_each_time(server, publish, blobs, children):
    artifact = publish()
    blobs.delete([artifact.blob_name])

    for name in ("datum", "csv", "csv"):
        with pytest.raises(BlobMissingError):
            ask(server, artifact, name)
    server.close()
    assert children.count == 0


def test_a_blob_that_a_cleanup_removes_meanwhile_is_missing(server, publish, blobs, children):
    artifact = publish()
    children.shut()
    is_waiting(server, artifact)
    eventually(lambda: children.count, "the process starts")

    blobs.delete([artifact.blob_name])
    children.open()

    with pytest.raises(BlobMissingError):
        ask(server, artifact)
    assert children.count == 1
    assert [found.name for found in blobs.scan()] == []


def test_a_format_that_cannot_be_kept_is_given_to_all_the_same(server, publish, files, children, clock):
    files.cache.root.touch()  # No file can be made in a file.
    artifact = publish()

    assert [ask(server, artifact) for _ in range(3)] == [CSV] * 3
    assert children.count == 1
    clock.now_s += REMEMBERED_S
    assert ask(server, artifact) == CSV
    assert children.count == 2
    assert read(open_download(files, artifact, format_of(artifact, "csv"))) == CSV


def test_closing_kills_what_runs_and_tells_who_waits(files, publish, children):
    server = RenderQueue(files)
    artifacts = [publish() for _ in range(4)]
    children.shut()
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(ask, server, artifact) for artifact in artifacts]
        eventually(lambda: children.count == 2, "two processes start")

        server.close()

        assert all("stops" in str(answer.exception()) for answer in answers)
    assert children.alive() == []
    assert threads() == []
    with pytest.raises(ReportError, match="stops"):
        ask(server, artifacts[0])
    assert list(files.cache.entries()) == []
    server.close()


EXITS = """
import pathlib, sys, time, uuid
from types import SimpleNamespace
from dramatiq_diag.reports.cache import format_of
from dramatiq_diag.reports.errors import RenderingInProgress
from dramatiq_diag.reports.queue import RenderQueue
from dramatiq_diag.runtime.disk_cache import DiskCache
from dramatiq_diag.store.blobs.local import LocalBlobStore
from dramatiq_diag.store.models import Artifact

root, cache, ids, sys.executable, *blob_names = sys.argv[1:]
files = SimpleNamespace(blobs=LocalBlobStore(pathlib.Path(root)), cache=DiskCache(pathlib.Path(cache), 1024**2))
queue = RenderQueue(files)
for blob_name in blob_names:
    artifact = Artifact(artifact_id=uuid.uuid4(), name="memory_profile", filename="memory.datum", blob_name=blob_name)
    try:
        queue.open(artifact, format_of(artifact, "csv"), 0)
    except RenderingInProgress:
        pass
while len(list(pathlib.Path(ids).iterdir())) < 2:
    time.sleep(0.01)
"""


def test_a_program_that_exits_without_closing_renders_nothing_that_waits(files, publish, children):
    names = [publish().blob_name for _ in range(5)]
    children.shut()
    command = [
        PYTHON,
        "-c",
        EXITS,
        str(files.blobs.root),
        str(files.cache.root),
        str(children.ids),
        sys.executable,
        *names,
    ]

    with program(command) as exiting:
        eventually(lambda: children.count == 2, "two processes start")
        children.open()
        assert exiting.wait(PATIENCE_S) == 0

    assert children.count == 2
    assert len(list(files.cache.entries())) == 2


def test_making_one_starts_nothing(files):
    server = RenderQueue(files)

    assert threads() == []
    server.close()


def test_a_rendering_that_is_stopped_before_it_starts_starts_no_process(tmp_path, children):
    job = RenderProcess()
    job.stop()

    with open(os.devnull, "rb") as source, (tmp_path / "out").open("wb") as target, pytest.raises(ReportError):
        job.render(source, target, "memory.datum", "csv")
    assert children.count == 0


def test_a_process_that_is_killed_is_a_clear_error(server, publish, children):
    artifact = publish()
    children.shut()
    is_waiting(server, artifact)
    [child] = eventually(children.alive, "the process starts")

    os.kill(child, signal.SIGKILL)

    with pytest.raises(ReportError, match="could not be made"):
        ask(server, artifact)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
@pytest.mark.parametrize(("name", "limit_bytes"), [("svg", 64 * 1024**2), ("csv", 12 * 1024**2)])
def test_a_report_beyond_the_limit_of_memory_is_a_clear_error(files, publish, name, limit_bytes):
    pytest.importorskip("vl_convert")
    server = RenderQueue(files, make_process=lambda: RenderProcess(max_memory_bytes=limit_bytes))
    artifact = publish(b"".join(b"%d.000\t10.000\n" % second for second in range(200_000)))

    with pytest.raises(ReportError, match=f"within {limit_bytes // 1024**2} MiB of memory"):
        ask(server, artifact, name)
    server.close()
