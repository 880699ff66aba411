"""Whatever reads what others wrote takes a bounded part of the memory, however much there is to read."""

from __future__ import annotations

import io
import json
import tracemalloc
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from dramatiq_diag.errors import SpoolError
from dramatiq_diag.reports.errors import ReportError
from dramatiq_diag.reports.pyinstrument import read as read_session
from dramatiq_diag.runtime.bounded_reading import PIECE_BYTES, PiecesFile, contains, lines, read_up_to
from dramatiq_diag.spool.entry import Entry
from dramatiq_diag.spool.owner_state import STATE_FILE, read_left
from dramatiq_diag.spool.reader import read_finished_run
from dramatiq_diag.store.blobs.local import LocalBlobStore
from dramatiq_diag.text import MIB
from support.blobs import put_one
from support.spool import END, TEXT, dead_entry, start_record

SIZE_BYTES = 64 * MIB

#: What a reader of a file of that size may hold at once; the longest line of an entry is in memory three times.
BUDGET_BYTES = 6 * MIB


# Files of 64 MiB, and what reads them.


def written(path: Path, beginning: bytes, line: bytes, end: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    block = line * max(MIB // len(line), 1)
    with path.open("wb") as file:
        file.write(beginning)
        while file.tell() < SIZE_BYTES:
            file.write(block)
        file.write(end)
    path.chmod(0o600)
    return path


def put_entry(directory: Path, line: bytes, *, start: bool = True) -> Callable[[], None]:
    """Writes an entry of such lines. Returns: What publishes the blobs of it."""
    run_id = uuid.uuid4()
    beginning = json.dumps(start_record(run_id)).encode() if start else b""
    entry = Entry(directory / "owner", run_id)
    written(entry.path("entry"), beginning + b"\n", line, b"\n" + json.dumps(END).encode() + b"\n")
    return lambda: publish(entry, directory)


def publish(entry: Entry, directory: Path) -> None:
    bundle = read_finished_run(entry)
    assert bundle is not None
    for artifact in bundle.artifacts:
        if artifact.open is not None:
            put_blob(directory, artifact.open)


def put_blob(directory: Path, opener: Callable[[], BinaryIO]) -> None:
    blobs = LocalBlobStore(directory / "blobs")
    blobs.claim(uuid.uuid4())
    with opener() as source:
        blobs.sha256(put_one(blobs, uuid.uuid4(), source).name)


def log_of_64_mib(directory: Path) -> Callable[[], None]:
    return put_entry(directory, json.dumps(TEXT | {"text": "x" * 60_000 + "\n"}).encode() + b"\n")


def one_line_of_64_mib(directory: Path) -> Callable[[], None]:
    return put_entry(directory, b"x")


def looks_of_an_older_version(directory: Path) -> Callable[[], None]:
    vitals = {"rss_bytes": 1, "available_bytes": 1, "total_bytes": 1}
    look = {"vitals": vitals, "overlapped_task_ids": ["y" * 50_000 for _ in range(20)]}
    return put_entry(directory, json.dumps(look).encode() + b"\n")


def lists_in_lists(directory: Path) -> Callable[[], None]:
    return put_entry(directory, b"[" * 100_000 + b"\n")


def outcomes_of_more_artifacts_than_there_can_be(directory: Path) -> Callable[[], None]:
    numbered = (f"artifact_{number}" for number in range(2000))
    outcomes = [{"artifact": name, "status": "failed", "reason": "x" * 30_000} for name in numbered]
    return put_entry(directory, b"".join(json.dumps(outcome).encode() + b"\n" for outcome in outcomes))


def entry_without_a_start(directory: Path) -> Callable[[], None]:
    refused = put_entry(directory, json.dumps(TEXT | {"text": "x" * 60_000}).encode() + b"\n", start=False)

    def read() -> None:
        with pytest.raises(SpoolError):
            refused()

    return read


def file_of_an_artifact_that_is_linked(directory: Path) -> Callable[[], None]:
    path = written(directory / "capture", b"", b"x")
    return lambda: put_blob(directory, lambda: path.open("rb"))


def file_of_an_artifact_that_is_copied(directory: Path) -> Callable[[], None]:
    path = written(directory / "capture", b"", b"x")
    path.chmod(0o644)
    return lambda: put_blob(directory, lambda: path.open("rb"))


def checkpoint(directory: Path) -> Callable[[], None]:
    entry = dead_entry(directory, [start_record(run_id := uuid.uuid4())], run_id)
    written(entry.path("memory_profile.part"), b"", b"x")
    return lambda: publish(entry, directory)


def state_of_a_process(directory: Path) -> Callable[[], None]:
    written(directory / STATE_FILE, b"", b"x")
    return lambda: read_left(directory).state and None


def stored_session(directory: Path) -> Callable[[], None]:
    path = written(directory / "session.json", b"x", b"x")

    def read() -> None:
        with pytest.raises(ReportError, match="too large"):
            read_session(str(path))

    return read


@pytest.mark.parametrize(
    "make",
    [
        log_of_64_mib,
        one_line_of_64_mib,
        looks_of_an_older_version,
        lists_in_lists,
        outcomes_of_more_artifacts_than_there_can_be,
        entry_without_a_start,
        file_of_an_artifact_that_is_linked,
        file_of_an_artifact_that_is_copied,
        checkpoint,
        state_of_a_process,
        stored_session,
    ],
)
def test_reading_64_mib_takes_a_few(tmp_path, make):
    read = make(tmp_path)
    tracemalloc.start()
    try:
        read()
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < BUDGET_BYTES


# The parts.


@pytest.mark.parametrize("length", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 5 * PIECE_BYTES])
def test_read_up_to_reads_what_there_is_and_no_more(length):
    data = bytes(index % 251 for index in range(length))

    assert read_up_to(io.BytesIO(data), 10 * PIECE_BYTES) == data
    assert read_up_to(io.BytesIO(data), 100) == data[:100]


@pytest.mark.parametrize("before", [0, PIECE_BYTES - 3, PIECE_BYTES, 3 * PIECE_BYTES - 1])
def test_contains_finds_what_is_split_between_two_pieces(before):
    data = b"x" * before + b"needle" + b"x" * 100

    assert contains(io.BytesIO(data), b"needle")
    assert not contains(io.BytesIO(data.replace(b"needle", b"needl")), b"needle")


LINES: list[tuple[bytes, list[Any]]] = [
    (b"", []),
    (b"a\nb\n", [b"a", b"b"]),
    (b"a\n\nb", [b"a", b"", b"b"]),
    (b"x" * 1000 + b"\nb\n", [b"x" * 1000, b"b"]),
    (b"x" * 1001 + b"\nb\n", [None, b"b"]),
    (b"a\n" + b"x" * (3 * PIECE_BYTES) + b"\nb\n", [b"a", None, b"b"]),
    (b"a\n" + b"x" * (3 * PIECE_BYTES), [b"a", None]),
    (b"x" * (PIECE_BYTES - 1) + b"\nb\n", [None, b"b"]),
    (b"a\n" * PIECE_BYTES + b"b", [b"a"] * PIECE_BYTES + [b"b"]),
]


@pytest.mark.parametrize(("data", "expected"), LINES)
def test_lines_are_told_apart_from_what_is_too_long(data, expected):
    assert list(lines(io.BytesIO(data), 1000, len(data))) == expected


def test_lines_end_at_the_bound():
    assert list(lines(io.BytesIO(b"aa\nbb\ncc\n"), 1000, 5)) == [b"aa", b"bb"]


def test_a_file_of_pieces_is_read_as_one_and_closes_what_makes_them():
    closed: list[bool] = []

    def pieces():
        try:
            yield b"ab"
            yield b""
            yield b"c" * 100_000
            yield b"d"
        finally:
            closed.append(True)

    with io.BufferedReader(PiecesFile(pieces()), 1000) as file:
        assert file.read(3) == b"abc"
        assert file.read() == b"c" * 99_999 + b"d"
    with io.BufferedReader(PiecesFile(pieces()), 1000) as file:
        assert file.read(1) == b"a"

    assert closed == [True, True]
