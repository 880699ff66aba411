"""Entries: what was appended comes back, and those that are published serve again."""

from __future__ import annotations

import errno
import os
import stat
import threading
import uuid
from pathlib import Path

import pytest

from dramatiq_diag.spool.directory import READY_ENTRIES, Spool
from dramatiq_diag.spool.entry import ENTRY_SUFFIX, Entry
from dramatiq_diag.spool.reader import read_finished_run
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from support.spool import END, TEXT, dead_entry, start_record

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
    following.flush()
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


# An entry whose file is closed while it waits.


def ended(spool):
    """Returns: An entry of a run that has ended, with its file open."""
    entry = spool.entry()
    entry.append(start_record(entry.run_id), TEXT, END)
    entry.flush()
    return entry


def test_a_parked_entry_has_no_open_file_and_goes_on_where_it_ended(spool):
    entry = ended(spool)
    entry.park()
    assert _descriptors(entry.path(ENTRY_SUFFIX)) == 0
    entry.append({"to": "memory_profile", "text": "meanwhile\n"})

    assert entry.reopen()
    assert _descriptors(entry.path(ENTRY_SUFFIX)) == 1
    outcome = {"artifact": "memory_profile", "status": "partial", "reason": "why"}
    entry.append(outcome)
    entry.close()

    # What came while the file was closed is in memory, and the rest on the disk
    assert entry.in_memory
    assert outcome in list(Entry(entry.owner, entry.run_id).records())
    published = read_finished_run(entry).artifacts[0]
    assert (published.status, published.reason) == (ArtifactStatus.PARTIAL, "why")
    assert published.open().read() == b"0.000\t1.000\nmeanwhile\n"


def test_an_entry_that_was_removed_while_it_was_parked_is_lost_and_says_so(spool):
    entry = ended(spool)
    entry.park()
    entry.path(ENTRY_SUFFIX).unlink()

    assert not entry.reopen()
    with pytest.raises(FileNotFoundError):
        list(entry.records())


def test_an_entry_that_was_removed_before_is_not_parked_and_kept(spool):
    entry = ended(spool)
    entry.path(ENTRY_SUFFIX).unlink()
    entry.park()

    assert entry.reopen()
    entry.close()
    assert read_finished_run(entry).run.status == RunStatus.SUCCEEDED


def test_parking_beside_threads_that_append_loses_nothing(spool):
    entry = spool.entry()
    entry.append(start_record(entry.run_id))
    entry.flush()
    others = [open(os.devnull) for _ in range(3)]  # noqa: SIM115 - files that take the freed number.

    def append(number: int) -> None:
        for count in range(300):
            entry.append({"to": "memory_profile", "text": f"{number} {count}\n"})

    threads = [threading.Thread(target=append, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        entry.park()
        others.append(open(os.devnull))  # noqa: SIM115
        assert entry.reopen()
        others.pop(0).close()
    for thread in threads:
        thread.join()
    entry.append(END)
    entry.close()
    for file in others:
        file.close()

    lines = read_finished_run(entry).artifacts[0].open().read().decode().splitlines()
    assert sorted(lines) == sorted(f"{number} {count}" for number in range(4) for count in range(300))


def _descriptors(path: Path) -> int:
    """How many descriptors of this process are of that file."""
    links = (os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.exists())
    return sum(link == str(path) for link in links)


# Files of artifacts.


def test_a_file_whose_text_breaks_off_leaves_nothing_in_the_way_of_the_next(spool):
    entry = spool.entry()

    def broken():
        yield "half"
        raise MemoryError

    with pytest.raises(MemoryError):
        entry.write_file("pyinstrument_profile", broken())
    entry.write_file("pyinstrument_profile", "whole")

    with entry.open("pyinstrument_profile") as file:
        assert file.read() == b"whole"
