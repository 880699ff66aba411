"""Hostile entries: none stops the worker or the good ones."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

import pytest

from dramatiq_diag.errors import SpoolError
from dramatiq_diag.spool.directory import Spool
from dramatiq_diag.spool.entry import ENTRY_SUFFIX
from dramatiq_diag.spool.reader import read_finished_run
from dramatiq_diag.spool.schema import MAX_ARTIFACTS
from dramatiq_diag.statuses import ArtifactStatus
from dramatiq_diag.worker.tuning import Tuning
from support.spool import END, KINDS, TEXT, dead_entry, make_foreign, start_record

# Hostile entries: lines of an otherwise good entry.
HOSTILE_LINES = [
    # Not JSON, or not ours
    "\n\x00\x00\x00\n",
    "\nnot json\n",
    "\n[1, 2]\n",
    "\nnull\n",
    '\n{"a": ' + "[" * 50_000 + "\n",
    '\n{"unknown": 1}\n',
    "\n" + "9" * 10_000 + "\n",
    # Wrong types
    {"end": 3},
    {"end": {"status": "flying", "finished_at": "2026-01-01T00:00:00+00:00", "duration_ms": 1}},
    {"end": {"status": "succeeded", "finished_at": "yesterday", "duration_ms": 1}},
    {"end": {"status": "succeeded", "finished_at": "2026-01-01T00:00:00", "duration_ms": 1}},
    {"to": "memory_profile", "text": 3},
    {"to": "../../etc/passwd", "text": "x"},
    {"to": "memory_profile", "text": "x", "peak_rss_bytes": -1},
    {"to": "memory_profile", "text": "x", "peak_rss_bytes": 2**70},
    {"artifact": "memory_profile", "status": "won", "reason": "x"},
    {"artifact": "memory_profile", "status": "stored"},
    {"artifact": ["memory_profile"], "status": "stored", "reason": "x"},
    {"run": "again"},
    {"declared": "stuck_stacks"},
    {"declared": {"name": "../x", "filename": "a", "media_type": "text/plain"}},
    {"declared": {"name": "x", "filename": "../../a", "media_type": "text/plain"}},
]

# Hostile entries: what an entry begins with.
HOSTILE_STARTS = [
    {"run_id": str(uuid.uuid4())},
    {"run_id": "no uuid"},
    {"task_id": 3},
    {"pid": -1},
    {"pid": 2**80},
    {"started_at": "2026-01-01T00:00:00"},
    {"trace_id": "<script>"},
    {"trace_id": "0" * 33},
    {"span_id": "B7AD6B7169203331"},
    {"artifacts": "all"},
    {"artifacts": [{"name": "../x", "filename": "a", "media_type": "text/plain"}]},
    {"artifacts": [{"name": "entry.tmp", "filename": "a", "media_type": "text/plain"}]},
    {"artifacts": [{"name": "x", "filename": "../../a", "media_type": "text/plain"}]},
    {"artifacts": [{"name": "x", "filename": "a\r\nb", "media_type": "text/plain"}]},
    {"artifacts": [{"name": "x", "filename": "a", "media_type": "text/html\r\nSet-Cookie: a"}]},
    {"artifacts": [{"name": f"x{number}", "filename": "a", "media_type": "a/b"} for number in range(101)]},
]

# Hostile entries that are well-formed, and so are published or refused, but never stop anything else.
STRANGE_STARTS = [
    {"task_id": "\0\ud800" * 10},
    {"task_id": "x" * 100_000},
    {"actor_name": "a" * 100_000, "queue_name": "\0", "hostname": "\ud800" * 300},
    {"started_at": "0001-01-01T00:00:00+14:00"},
    {"started_at": "9999-12-31T23:59:59-14:00"},
    {"artifacts": []},
    {"artifacts": [{"name": "entry", "filename": "a", "media_type": "text/plain"}]},
    {
        "artifacts": [
            {"name": "x", "filename": "a", "media_type": "text/plain"},
            {"name": "x", "filename": "b", "media_type": "text/plain"},
        ]
    },
]

STRANGE_ENDS = [
    {"status": "succeeded", "finished_at": "9999-12-31T23:59:59+00:00", "duration_ms": 1},
    {"status": "succeeded", "finished_at": "0001-01-01T00:00:00+14:00", "duration_ms": 1},
    {"status": "succeeded", "finished_at": "2026-01-01T00:00:00+00:00", "duration_ms": float("nan")},
    {"status": "succeeded", "finished_at": "2026-01-01T00:00:00+00:00", "duration_ms": float("inf")},
    {"status": "running", "finished_at": "2026-01-01T00:00:00+00:00", "duration_ms": 1},
    {
        "status": "failed",
        "finished_at": "2026-01-01T00:00:00+00:00",
        "duration_ms": -1,
        "exception_type": "\0" * 1000,
        "exception_message": "\ud800" * 100_000,
        "overlapped_task_ids": ["\0\ud800"] * 1000,
    },
]


@pytest.mark.parametrize("line", HOSTILE_LINES)
def test_a_hostile_line_is_passed_over(settings, line):
    run_id = uuid.uuid4()
    entry = dead_entry(settings().spool, [start_record(run_id), TEXT, line, END], run_id)

    bundle = read_finished_run(entry)

    assert bundle.run.task_id == "task-1"
    assert bundle.artifacts[0].status == ArtifactStatus.STORED
    assert bundle.artifacts[0].open().read() == TEXT["text"].encode()


def test_artifacts_that_are_declared_late_are_counted(settings):
    run_id = uuid.uuid4()
    declared = [
        {"declared": {"name": f"late_{number}", "filename": "a", "media_type": "text/plain"}} for number in range(1000)
    ]
    entry = dead_entry(settings().spool, [start_record(run_id), *declared, END], run_id)

    assert len(read_finished_run(entry).artifacts) == 1 + MAX_ARTIFACTS


@pytest.mark.parametrize("changes", HOSTILE_STARTS)
def test_a_hostile_beginning_is_refused(settings, changes):
    run_id = uuid.uuid4()
    entry = dead_entry(settings().spool, [start_record(run_id, **changes), TEXT, END], run_id)

    with pytest.raises(SpoolError, match="does not say which run"):
        read_finished_run(entry)


@pytest.mark.parametrize("kind", KINDS)
def test_an_artifact_that_is_no_regular_file_is_not_published(settings, bench, stored, tmp_path, kind):
    given = settings(task_diagnostics=["memory"])
    secret = tmp_path / "secret"
    secret.write_text("root:x:0:0")
    run_id = uuid.uuid4()
    entry = dead_entry(given.spool, [start_record(run_id), END], run_id)
    make_foreign(kind, Path(entry.path("memory_profile")), secret)

    with bench(given) as tasks:
        task_id = tasks.run(lambda: None, actor_name="work")

    artifact = stored(given).artifacts("task-1")["memory_profile"]
    assert artifact.status == ArtifactStatus.FAILED
    assert artifact.blob_name is None
    assert stored(given).artifacts(task_id)["memory_profile"].status == ArtifactStatus.STORED
    assert secret.read_text() == "root:x:0:0"


@pytest.mark.parametrize("kind", KINDS)
def test_an_entry_that_is_no_regular_file_harms_nothing(settings, bench, stored, tmp_path, kind):
    given = settings(task_diagnostics=["memory"])
    run_id = uuid.uuid4()
    secret = tmp_path / "secret"
    secret.write_text(json.dumps(start_record(run_id)))
    owner = given.spool / str(uuid.uuid4())
    owner.mkdir(parents=True)
    make_foreign(kind, owner / f"{run_id}.{ENTRY_SUFFIX}", secret)

    with bench(given) as tasks:
        task_id = tasks.run(lambda: None, actor_name="work")

    assert [run.task_id for run in stored(given).all_runs()] == [task_id]
    assert secret.exists()


def test_a_lock_that_is_a_link_is_not_followed(settings, tmp_path):
    given = settings()
    target = tmp_path / "precious"
    owner = given.spool / str(uuid.uuid4())
    owner.mkdir(parents=True)
    (owner / "owner.lock").symlink_to(target)

    assert list(Spool(given).dead_owners()) == []
    assert not target.exists()


def test_hostile_entries_stop_neither_the_worker_nor_the_good_ones(settings, bench, stored, database_url, caplog):
    given = settings(task_diagnostics=["memory"], database_url=database_url)

    # Given one dead owner with every hostile entry, and a good one after them
    owner = str(uuid.uuid4())
    for changes in [*HOSTILE_STARTS, *STRANGE_STARTS]:
        run_id = uuid.uuid4()
        dead_entry(given.spool, [start_record(run_id, **changes), TEXT, END], run_id, owner)
    for end in STRANGE_ENDS:
        run_id = uuid.uuid4()
        dead_entry(given.spool, [start_record(run_id), TEXT, {"end": end}], run_id, owner)
    run_id = uuid.uuid4()
    last = dead_entry(given.spool, [start_record(run_id, task_id="the good one"), TEXT, END], run_id, owner)
    os.utime(last.path(ENTRY_SUFFIX), (4e9, 4e9))

    # When a worker comes by, and runs a task of its own
    with bench(given) as tasks:
        task_id = tasks.run(lambda: None, actor_name="work")

    # Then the good ones are stored, the store is whole, and each bad one is said once
    reader = stored(given)
    rejected = [record for record in caplog.records if "could not be published" in record.getMessage()]
    assert len(rejected) >= len(HOSTILE_STARTS)
    assert [run.status for run in reader.runs("the good one")] == ["succeeded"]
    assert reader.artifacts(task_id)["memory_profile"].status == ArtifactStatus.STORED
    findings = reader.check()  # What was put for an entry whose rows were refused is an orphan, for the cleanup.
    assert (findings.missing_blobs, findings.damaged_blobs) == ([], [])
    assert len({record.getMessage() for record in rejected}) == len(rejected)
    assert not [record for record in caplog.records if "unexpected error" in record.getMessage()]


def test_salvage_says_once_what_it_cannot_publish(settings, bench, stored, caplog):
    given = settings(task_diagnostics=["memory"])
    run_id = uuid.uuid4()
    entry = dead_entry(given.spool, [start_record(run_id, pid=-1), END], run_id)

    # When a worker comes upon a bad entry again and again
    with bench(given, tuning=Tuning(salvage_s=0.0)) as tasks:
        for number in range(5):
            tasks.run(lambda: None, actor_name=f"work{number}")

    # Then it says so once, publishes its own, and leaves the entry alone
    messages = [record.getMessage() for record in caplog.records if str(entry.run_id) in record.getMessage()]
    assert len(messages) == 1
    assert Path(entry.path(ENTRY_SUFFIX)).exists()
    assert len(stored(given).all_runs()) == 5
