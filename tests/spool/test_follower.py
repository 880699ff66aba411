"""An entry is followed while it grows: each record is read once, also one that the disk did not take."""

from __future__ import annotations

import uuid
from pathlib import Path

from dramatiq_diag.spool.entry import ENTRY_SUFFIX, Entry
from dramatiq_diag.spool.follower import EntryFollower


def opened(directory: Path) -> Entry:
    entry = Entry(directory, uuid.uuid4())
    entry.create()
    entry.flush()
    return entry


def texts(follower: EntryFollower) -> list[str]:
    return [record["text"] for record in follower.records()]


def line(text: str) -> dict[str, str]:
    return {"to": "task_logs", "text": text}


def test_each_record_is_read_once(tmp_path: Path) -> None:
    entry = opened(tmp_path)
    follower = EntryFollower(entry)
    entry.append(line("a"), line("b"))
    assert texts(follower) == ["a", "b"]
    assert texts(follower) == []
    entry.append(line("c"))
    assert texts(follower) == ["c"]
    entry.close()


def test_a_line_that_is_being_written_is_read_later(tmp_path: Path) -> None:
    entry = opened(tmp_path)
    follower = EntryFollower(entry)
    with entry.path(ENTRY_SUFFIX).open("ab") as file:
        file.write(b'{"to": "task_logs", "text": ')
        file.flush()
        assert texts(follower) == []
        file.write(b'"a"}\n')
    assert texts(follower) == ["a"]
    entry.close()


def test_a_long_entry_is_read_in_parts(tmp_path: Path) -> None:
    entry = opened(tmp_path)
    follower = EntryFollower(entry, max_read_bytes=100)
    entry.append(*(line(f"{number:050}") for number in range(4)))
    parts = [texts(follower) for _ in range(4)]
    assert [text for part in parts for text in part] == [f"{number:050}" for number in range(4)]
    assert len(parts[0]) < 4
    entry.close()


def test_what_the_disk_did_not_take_is_read_as_well(tmp_path: Path) -> None:
    entry = Entry(tmp_path / "nowhere", uuid.uuid4())
    entry.create()
    entry.flush()
    follower = EntryFollower(entry)
    entry.append(line("a"))
    assert texts(follower) == ["a"]
    entry.append(line("b"))
    assert texts(follower) == ["b"]


def test_a_removed_entry_has_nothing_more(tmp_path: Path) -> None:
    entry = opened(tmp_path)
    follower = EntryFollower(entry)
    entry.append(line("a"))
    entry.remove([])
    assert texts(follower) == []
    entry.close()
