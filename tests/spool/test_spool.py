"""The spool: owners and locks, torn and hostile entries, a spool that is full or cannot be written."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
import uuid
from pathlib import Path

import pytest
from dramatiq.middleware import TimeLimitExceeded

from dramatiq_diag.collectors.names import all_names
from dramatiq_diag.errors import SpoolError
from dramatiq_diag.spool.directory import READY_ENTRIES, Spool
from dramatiq_diag.spool.entry import ENTRY_SUFFIX, Entry
from dramatiq_diag.spool.reader import read_finished_run
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from support import PATIENCE_S
from support.spool import END, KINDS, TEXT, dead_entry, dead_owners_seen_by_another_process, make_foreign, start_record
from support.tasks import finish

_FORK = """
import os, sys, time
from dramatiq_diag import Settings
from dramatiq_diag.spool.directory import Spool
spool = Spool(Settings(data_dir=sys.argv[1]))
spool.open()
print(spool.owner.name, flush=True)
if os.fork() == 0:
    print("child", flush=True)
    time.sleep(600)
sys.stdin.readline()
os._exit(0)
"""


@pytest.fixture
def spool(settings):
    spool = Spool(settings())
    spool.open()
    yield spool
    spool.close()


# Owners.


def test_an_owner_is_private_and_locked_while_it_lives(spool, settings):
    assert stat.S_IMODE(spool.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(spool.owner.stat().st_mode) == 0o700
    assert stat.S_IMODE((spool.owner / "owner.lock").stat().st_mode) == 0o600
    assert dead_owners_seen_by_another_process(settings().data_dir) == []
    assert list(Spool(settings()).dead_owners()) == []


def test_the_processes_own_look_does_not_drop_its_lock(spool, settings):
    list(Spool(settings()).dead_owners())
    spool.measure()

    assert dead_owners_seen_by_another_process(settings().data_dir) == []


def test_a_closed_spool_leaves_no_directory(settings):
    spool = Spool(settings())
    spool.open()

    spool.close()
    spool.close()

    assert list(spool.root.iterdir()) == []


def test_a_closed_spool_leaves_what_is_not_published_to_the_next_worker(settings):
    spool = Spool(settings())
    spool.open()
    owner = spool.owner
    entry = spool.entry()
    entry.append(start_record(entry.run_id))
    entry.flush()
    entry.close()

    spool.close()

    assert [entry.run_id for entry in Spool(settings()).entries(owner, 10)] == [entry.run_id]
    assert dead_owners_seen_by_another_process(settings().data_dir) == [owner.name]


def test_a_child_that_a_task_forked_does_not_keep_a_dead_owner_alive(settings, python):
    # Given a worker with a forked child
    process = python(_FORK, str(settings().data_dir))
    lines = {process.stdout.readline().strip(), process.stdout.readline().strip()}
    (name,) = lines - {"child"}
    assert dead_owners_seen_by_another_process(settings().data_dir) == []

    # When the worker ends and the child lives on
    process.stdin.write("\n")
    process.stdin.flush()
    process.wait(PATIENCE_S)

    # Then the owner counts as dead
    assert dead_owners_seen_by_another_process(settings().data_dir) == [name]
    import psutil

    for child in psutil.process_iter(["cmdline"]):
        if str(settings().data_dir) in (child.info["cmdline"] or []):
            child.kill()


def test_two_salvagers_never_have_the_same_owner(settings):
    owner = dead_entry(settings().spool, [start_record(uuid.uuid4())]).owner

    for claimed in Spool(settings()).dead_owners():
        assert claimed == owner
        assert dead_owners_seen_by_another_process(settings().data_dir) == []

    assert dead_owners_seen_by_another_process(settings().data_dir) == [owner.name]


def test_foreign_names_in_the_spool_are_let_be(settings, bench, tmp_path):
    given = settings(task_diagnostics=["memory"], orphan_protection_time=0)
    root = given.spool
    root.mkdir(parents=True)
    (root / "notes").mkdir()
    (root / "notes" / "a.txt").write_text("mine")
    (root / "README").write_text("mine")
    (root / str(uuid.uuid4())).symlink_to(tmp_path)
    (root / str(uuid.uuid4())).write_text("a file with an owner's name")
    before = sorted(str(path) for path in root.rglob("*"))

    with bench(given):
        pass

    assert sorted(str(path) for path in root.rglob("*")) == before
    assert list(Spool(given).remove_abandoned(before=1e12)) == []
    assert sorted(str(path) for path in root.rglob("*")) == before


# Entries.


def test_an_entry_is_private(spool):
    entry = spool.entry()
    entry.close()

    assert stat.S_IMODE(Path(entry.path(ENTRY_SUFFIX)).stat().st_mode) == 0o600


def test_what_was_appended_comes_back_in_order(spool):
    entry = spool.entry()
    records = [start_record(entry.run_id), TEXT, {"to": "memory_profile", "text": "1.000\t2.000\n"}, END]
    entry.append(records[0])
    entry.flush()
    for record in records[1:]:
        entry.append(record)
    entry.close()

    assert list(Entry(entry.owner, entry.run_id).records()) == records
    bundle = read_finished_run(entry)
    assert bundle.run.status == RunStatus.SUCCEEDED
    assert bundle.run.peak_rss_bytes == 1048576
    assert bundle.artifacts[0].open().read() == b"0.000\t1.000\n1.000\t2.000\n"


def test_appending_from_many_threads_tears_nothing(spool):
    entry = spool.entry()
    entry.append(start_record(entry.run_id))
    entry.flush()

    def append(number: int) -> None:
        for _ in range(200):
            entry.append({"to": "memory_profile", "text": f"{number}\n"})

    threads = [threading.Thread(target=append, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entry.close()

    assert len(list(Entry(entry.owner, entry.run_id).records())) == 1 + 8 * 200


@pytest.mark.parametrize("cut", [1, 3, 10, 40])
def test_a_torn_last_line_costs_itself_alone(settings, cut):
    run_id = uuid.uuid4()
    entry = dead_entry(settings().spool, [start_record(run_id), TEXT, TEXT], run_id)
    path = Path(entry.path(ENTRY_SUFFIX))
    path.write_bytes(path.read_bytes()[:-cut])

    bundle = read_finished_run(entry)

    assert bundle.run.status == RunStatus.INTERRUPTED
    assert bundle.artifacts[0].status == ArtifactStatus.PARTIAL
    text = bundle.artifacts[0].open().read()
    assert text in (TEXT["text"].encode(), 2 * TEXT["text"].encode())


def test_a_line_that_a_full_disk_tore_spoils_no_other(settings):
    run_id = uuid.uuid4()
    entry = dead_entry(settings().spool, [start_record(run_id), '\n{"to": "memory_pro', TEXT, END], run_id)

    bundle = read_finished_run(entry)

    assert bundle.run.status == RunStatus.SUCCEEDED
    assert bundle.artifacts[0].open().read() == TEXT["text"].encode()


def test_an_entry_that_was_never_begun_is_nothing(settings):
    assert read_finished_run(dead_entry(settings().spool, [])) is None


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
]

# Hostile entries: what an entry begins with.
HOSTILE_STARTS = [
    {"run_id": str(uuid.uuid4())},
    {"run_id": "no uuid"},
    {"task_id": 3},
    {"pid": -1},
    {"pid": 2**80},
    {"started_at": "2026-01-01T00:00:00"},
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


def test_salvage_says_once_what_it_cannot_publish(settings, bench, stored, caplog, monkeypatch):
    given = settings(task_diagnostics=["memory"])
    run_id = uuid.uuid4()
    entry = dead_entry(given.spool, [start_record(run_id, pid=-1), END], run_id)
    monkeypatch.setattr("dramatiq_diag.worker.publisher._SALVAGE_INTERVAL_S", 0.0)

    # When a worker comes upon a bad entry again and again
    with bench(given) as tasks:
        for number in range(5):
            tasks.run(lambda: None, actor_name=f"work{number}")

    # Then it says so once, publishes its own, and leaves the entry alone
    messages = [record.getMessage() for record in caplog.records if str(entry.run_id) in record.getMessage()]
    assert len(messages) == 1
    assert Path(entry.path(ENTRY_SUFFIX)).exists()
    assert len(stored(given).all_runs()) == 5


# Full, or not writable.


def test_a_full_spool_declines_with_a_reason_and_throws_nothing_away(settings, bench, stored):
    given = settings(task_diagnostics=list(all_names()), spool_max_bytes=1000)
    calls: list[int] = []

    # Given a spool that is past its limit by what somebody left in it
    run_id = uuid.uuid4()
    left = dead_entry(given.spool, [start_record(run_id, pid=-1), TEXT, END, "x" * 2000], run_id)

    with bench(given) as tasks:
        process = tasks.diagnostics.process
        process.spool.measure()
        assert process.spool.full
        task_id = tasks.run(lambda: calls.append(1), actor_name="work")

    # Then the task ran, each artifact says why there is none, and what was there still is
    assert calls == [1]
    artifacts = stored(given).artifacts(task_id)
    assert len(artifacts) == len(all_names())
    assert {artifact.status for artifact in artifacts.values()} == {ArtifactStatus.SKIPPED}
    assert all("DRAMATIQ_DIAG_SPOOL_MAX_BYTES" in artifact.reason for artifact in artifacts.values())
    assert Path(left.path(ENTRY_SUFFIX)).exists()


def test_an_unwritable_spool_harms_no_task_and_publishes_from_memory(settings, bench, stored, tmp_path, caplog):
    (tmp_path / "a file").touch()
    given = settings(task_diagnostics=list(all_names()), spool_dir=tmp_path / "a file" / "spool")
    calls: list[int] = []

    with bench(given) as tasks:
        ids = [tasks.run(lambda: calls.append(1), actor_name=f"work{number}") for number in range(3)]

    # The tasks ran, the log says once what is wrong and what to do, and what needs no file is stored
    assert calls == [1, 1, 1]
    ours = (record for record in caplog.records if record.name.startswith("dramatiq_diag"))
    [said] = [record for record in ours if record.levelname != "INFO"]
    assert "DRAMATIQ_DIAG_SPOOL_DIR" in said.getMessage()
    assert said.exc_info is None
    for task_id in ids:
        assert stored(given).runs(task_id)[0].status == RunStatus.SUCCEEDED
        artifacts = stored(given).artifacts(task_id)
        assert artifacts["memory_profile"].status == ArtifactStatus.STORED
        assert artifacts["memray_profile"].status == ArtifactStatus.FAILED
        assert artifacts["pyinstrument_profile"].status == ArtifactStatus.FAILED
        assert artifacts["memray_profile"].reason
    assert not stored(given).check()


def test_a_spool_that_becomes_writable_is_used(settings, stub_broker, run_worker, stored, tmp_path, monkeypatch):
    import dramatiq

    from dramatiq_diag import Diagnostics

    obstacle = tmp_path / "a file"
    obstacle.touch()
    given = settings(task_diagnostics=["memory"], spool_dir=obstacle / "spool")
    monkeypatch.setattr("dramatiq_diag.worker.saver._MEASURE_INTERVAL_S", 0.01)
    diagnostics = Diagnostics(given)
    stub_broker.add_middleware(diagnostics)
    actor = dramatiq.actor(lambda: None, broker=stub_broker, actor_name="work")

    with run_worker(stub_broker) as worker:
        first = actor.send().message_id
        finish(stub_broker, worker, "default")
        obstacle.unlink()
        while diagnostics.process.spool.owner is None:
            assert diagnostics.flush(PATIENCE_S)
            actor.send()
            finish(stub_broker, worker, "default")
        last = actor.send().message_id
        finish(stub_broker, worker, "default")

    assert {stored(given).runs(task_id)[0].status for task_id in (first, last)} == {"succeeded"}
    assert list(given.spool.iterdir()) == []


def test_a_disk_that_takes_no_more_loses_no_record(spool, monkeypatch):
    entry = spool.entry()
    entry.append(start_record(entry.run_id))
    entry.flush()

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    entry.append(TEXT)
    entry.append(END)
    monkeypatch.undo()
    entry.close()

    bundle = read_finished_run(entry)
    assert bundle.run.status == RunStatus.SUCCEEDED
    assert bundle.artifacts[0].open().read() == TEXT["text"].encode()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", [1, 2])
def test_an_interrupt_in_a_write_loses_no_record_and_doubles_none(spool, monkeypatch, when, step):
    entry, write, calls = spool.entry(), os.write, []

    # Given an interrupt that strikes before or right after the system call
    def struck(descriptor: int, data: bytes) -> int:
        calls.append(1)
        if when == "before" and len(calls) == step:
            raise TimeLimitExceeded
        count = write(descriptor, data)
        if len(calls) == step:
            raise TimeLimitExceeded
        return count

    monkeypatch.setattr("dramatiq_diag.spool.entry.os.write", struck)

    # When a run begins and ends, and the end goes on after the interrupt
    def begin() -> None:
        entry.append({"number": 1})
        entry.append({"number": 2})
        entry.flush()

    def end() -> None:
        entry.buffer()
        entry.append({"number": 3})
        entry.flush()

    for stage in (begin, end):
        try:
            stage()
        except TimeLimitExceeded:
            if stage is end:
                entry.flush()

    # Then each record is there once
    monkeypatch.undo()
    assert [record["number"] for record in entry.records()] == [1, 2, 3]
    entry.close()
    entry.remove(())


def test_what_json_cannot_hold_is_refused_where_it_is_appended(spool):
    entry = spool.entry()
    entry.append({"number": 1})

    with pytest.raises(TypeError):
        entry.append({"number": object()})

    entry.flush()
    assert list(entry.records()) == [{"number": 1}]
    entry.close()
    entry.remove(())


def test_removing_what_is_abandoned_keeps_what_is_young_or_alive(spool, settings):
    given = settings()
    run_ids = [uuid.uuid4() for _ in range(2)]
    old, young = (dead_entry(given.spool, [start_record(run_id), TEXT], run_id) for run_id in run_ids)
    Path(old.path("memray_profile")).write_bytes(b"x" * 1000)
    for path in old.owner.iterdir():
        os.utime(path, (1000, 1000))
    own = spool.entry()
    own.close()
    os.utime(own.path(ENTRY_SUFFIX), (1000, 1000))
    size = sum(path.stat().st_size for path in old.owner.iterdir() if path.name != "owner.lock")

    assert list(Spool(given).remove_abandoned(before=2000, dry_run=True)) == [size]
    assert list(Spool(given).remove_abandoned(before=2000)) == [size]
    assert list(Spool(given).remove_abandoned(before=2000)) == []
    assert not old.owner.exists()
    assert Path(young.path(ENTRY_SUFFIX)).exists()
    assert Path(own.path(ENTRY_SUFFIX)).exists()
    own.remove(())


def test_a_data_dir_that_a_worker_makes_is_private(settings, bench):
    given = settings(task_diagnostics=["memory"])

    with bench(given) as tasks:
        tasks.run(lambda: None, actor_name="work")

    assert stat.S_IMODE(given.data_dir.stat().st_mode) == 0o700


# Entries that serve again.


def sealed(spool: Spool) -> Entry:
    entry = spool.entry()
    entry.append(start_record(entry.run_id), TEXT, END)
    entry.flush()
    entry.close()
    return entry


def test_a_published_entry_serves_the_next_run(spool):
    entry = sealed(spool)
    Path(entry.path("memray_profile")).write_bytes(b"capture")
    file = entry.path(ENTRY_SUFFIX).stat().st_ino

    spool.discard(entry, ["memray_profile"])

    following = spool.entry()
    assert following.run_id != entry.run_id
    assert following.path(ENTRY_SUFFIX).stat().st_ino == file
    assert spool.entries(spool.owner, 10) == []  # It is of no run yet.
    assert not entry.path(ENTRY_SUFFIX).exists()
    assert not entry.path("memray_profile").exists()
    following.append(start_record(following.run_id), END)
    following.write()
    following.close()
    assert read_finished_run(following).run.run_id == following.run_id
    assert read_finished_run(following).artifacts[0].status == ArtifactStatus.FAILED  # Nothing of the text before.


def test_entries_are_kept_up_to_a_number(spool):
    entries = [sealed(spool) for _ in range(3 * READY_ENTRIES)]

    for entry in entries:
        spool.discard(entry, [])

    assert len(list(spool.owner.glob("*.entry"))) == 2 * READY_ENTRIES
    spool.refill_pool()
    assert len(list(spool.owner.glob("*.entry"))) == 2 * READY_ENTRIES


def test_an_entry_that_someone_removed_is_not_used_again(spool):
    entry = sealed(spool)
    entry.path(ENTRY_SUFFIX).unlink()

    spool.discard(entry, [])

    assert list(spool.owner.glob("*.entry")) == []


def test_what_a_dead_worker_left_does_not_serve_the_living(spool, settings):
    dead = dead_entry(settings().spool, [start_record(run_id := uuid.uuid4()), TEXT, END], run_id)

    spool.discard(dead, [])

    assert not dead.path(ENTRY_SUFFIX).exists()
    assert list(spool.owner.glob("*.entry")) == []


def test_a_process_that_dies_while_an_entry_is_emptied_leaves_nothing_to_publish(spool, settings, monkeypatch):
    entry = sealed(spool)

    def die(*_):
        raise OSError(errno.EIO, "as if the process ended here")

    monkeypatch.setattr(os, "rename", die)
    with pytest.raises(OSError, match="ended here"):
        spool.discard(entry, [])
    monkeypatch.undo()

    assert Spool(settings()).entries(spool.owner, 10) == []
    assert _descriptors(entry.path(ENTRY_SUFFIX)) == 0
    entry.remove(())


def _descriptors(path: Path) -> int:
    """How many descriptors of this process are of that file."""
    links = (os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.exists())
    return sum(link == str(path) for link in links)
