"""Entries past every bound: what is left out is said, the rest is published, and no run is refused for its length."""

from __future__ import annotations

import os
import uuid
from typing import Any

from dramatiq_diag.spool.delivery import Delivery
from dramatiq_diag.spool.directory import Spool
from dramatiq_diag.spool.entry import ENTRY_SUFFIX, Entry
from dramatiq_diag.spool.lines import Limits
from dramatiq_diag.spool.reader import read_finished_run
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.store.store import Store
from support.spool import END, TEXT, dead_entry, start_record


def new_entry(spool: Spool, limits: Limits) -> Entry:
    assert spool.owner is not None
    entry = Entry(spool.owner, uuid.uuid4(), limits)
    entry.create()
    return entry


def text(number: int, length: int = 100) -> dict[str, Any]:
    return {"to": "memory_profile", "text": f"{number:06d}{'x' * (length - 7)}\n"}


def texts_of(entry: Entry) -> tuple[Any, bytes]:
    """The one artifact of an entry, and what is published of it."""
    bundle = read_finished_run(entry)
    assert bundle is not None
    (artifact,) = bundle.artifacts
    with artifact.open() as file:
        return artifact, file.read()


def test_a_text_that_is_not_held_in_memory_is_published_as_it_was_written(settings):
    run_id = uuid.uuid4()
    lines = [text(number) | {"text": f"{number}\u00e9\ud800\n"} for number in range(10_000)]
    entry = dead_entry(settings().spool, [start_record(run_id), *lines, END], run_id)

    artifact, data = texts_of(entry)

    assert artifact.status == ArtifactStatus.STORED
    assert data.decode() == "".join(f"{number}\u00e9?\n" for number in range(10_000))
    assert read_finished_run(entry).held_bytes < 1000


def test_of_an_entry_past_the_bound_the_beginning_and_the_end_are_published(settings):
    run_id = uuid.uuid4()
    lines = [text(number) for number in range(5000)]
    dead = dead_entry(settings().spool, [start_record(run_id), *lines, END], run_id)
    entry = Entry(dead.owner, run_id, Limits(head=100_000, tail=10_000))

    artifact, data = texts_of(entry)

    # Then the run ended as it did, and the text has its first and its last line, and a reason
    assert read_finished_run(entry).run.status == RunStatus.SUCCEEDED
    assert artifact.status == ArtifactStatus.PARTIAL
    assert artifact.reason == "Its entry in the spool was too large to be read as a whole."
    written = data.decode().splitlines(keepends=True)
    assert (written[0], written[-1]) == (lines[0]["text"], lines[-1]["text"])
    assert set(written) < {line["text"] for line in lines}


def test_an_entry_with_a_hole_of_64_mib_is_that_of_an_interrupted_run(settings):
    run_id = uuid.uuid4()
    entry = dead_entry(settings().spool, [start_record(run_id), TEXT], run_id)
    os.truncate(entry.path(ENTRY_SUFFIX), 64 * 1024**2)

    artifact, data = texts_of(entry)

    assert read_finished_run(entry).run.status == RunStatus.INTERRUPTED
    assert (artifact.status, data) == (ArtifactStatus.PARTIAL, TEXT["text"].encode())
    assert "too large" in artifact.reason


def test_a_line_that_is_too_long_costs_itself_alone(settings):
    run_id = uuid.uuid4()
    entry = dead_entry(settings().spool, [start_record(run_id), text(1), text(2, 2 * 1024**2), text(3), END], run_id)

    artifact, data = texts_of(entry)

    assert artifact.status == ArtifactStatus.PARTIAL
    assert data.decode() == text(1)["text"] + text(3)["text"]


def test_a_long_text_of_one_call_is_published_as_a_whole(bench, settings, stored):
    given = settings(task_diagnostics=["memory"])
    long = "".join(f"{number:07d}\n" for number in range(100_000))

    with bench(given) as tasks:
        process = tasks.diagnostics.process

        def work() -> None:
            (run,) = process.runs.values()
            run.append_text(run.choice.collectors[0], long)

        task_id = tasks.run(work)

    assert long in stored(given).data(task_id, "memory_profile").decode()
    assert stored(given).artifacts(task_id)["memory_profile"].status == ArtifactStatus.STORED


def test_texts_past_the_limit_of_a_run_are_left_out_and_the_end_is_not(spool):
    entry = new_entry(spool, Limits(text=10_000))
    entry.append(start_record(entry.run_id))
    entry.flush()
    for number in range(1000):
        entry.append(text(number))
    entry.append(END)
    entry.close()

    artifact, data = texts_of(entry)

    assert entry.path(ENTRY_SUFFIX).stat().st_size < 12_000
    assert read_finished_run(entry).run.status == RunStatus.SUCCEEDED
    assert artifact.status == ArtifactStatus.PARTIAL
    assert artifact.reason == "The spool keeps 10000 bytes of the texts of a run; the rest was left out."
    assert data.startswith(text(0)["text"].encode())


def test_what_a_full_disk_does_not_take_is_kept_up_to_a_size(spool, monkeypatch):
    def full(*args: object) -> int:
        raise OSError(28, "No space left on device")

    entry = new_entry(spool, Limits(memory=10_000))
    entry.append(start_record(entry.run_id))
    entry.flush()
    monkeypatch.setattr("dramatiq_diag.spool.entry.os.write", full)
    for number in range(1000):
        entry.append(text(number))
    entry.append(END)
    monkeypatch.undo()
    entry.close()

    artifact, data = texts_of(entry)

    assert entry.memory_bytes < 12_000
    assert read_finished_run(entry).run.status == RunStatus.SUCCEEDED
    assert artifact.status == ArtifactStatus.PARTIAL
    assert artifact.reason.startswith("The disk took nothing more, and 10000 bytes of a run are kept in memory")
    assert data.startswith(text(0)["text"].encode())


def test_of_a_large_entry_that_someone_removed_both_ends_are_kept(spool):
    entry = new_entry(spool, Limits(memory=10_000))
    entry.append(start_record(entry.run_id))
    entry.flush()
    for number in range(1000):
        entry.append(text(number))
    entry.append(END)
    entry.path(ENTRY_SUFFIX).unlink()
    entry.close()

    artifact, data = texts_of(entry)

    assert entry.memory_bytes < 12_000
    assert read_finished_run(entry).run.status == RunStatus.SUCCEEDED
    assert artifact.status == ArtifactStatus.PARTIAL
    assert data.startswith(text(0)["text"].encode())
    assert data.endswith(text(999)["text"].encode())


# What older versions wrote.


def test_an_entry_of_an_older_version_is_salvaged_with_its_last_look(settings, stored):
    given = settings()
    run_id = uuid.uuid4()
    vitals = {"rss_bytes": 5 * 1024**3, "available_bytes": 1, "total_bytes": 8 * 1024**3}
    looks = [
        {"vitals": vitals | {"rss_bytes": number}, "overlapped_task_ids": [f"{n}-{'y' * 40}" for n in range(100)]}
        for number in range(1, 2000)
    ]
    last = {"vitals": vitals, "overlapped_task_ids": ["beside", "z" * 5000]}
    dead_entry(given.spool, [start_record(run_id), TEXT, *looks, last], run_id)

    counts = Delivery(Spool(given), stored(given).store).salvage()

    assert (counts.recovered_runs, counts.refused_runs) == (1, 0)
    (run,) = stored(given).all_runs()
    assert (run.status, run.peak_rss_bytes) == (RunStatus.INTERRUPTED, 5 * 1024**3)
    assert len(run.overlapped_task_ids) == 100
    assert "At the last look its RSS was 5.0 GiB" in stored(given).artifacts("task-1")["memory_profile"].reason


# Batches.


def test_a_batch_with_much_text_is_published_in_parts(settings, stored, monkeypatch):
    given = settings()
    owner = str(uuid.uuid4())
    for _ in range(20):
        run_id = uuid.uuid4()
        dead_entry(given.spool, [start_record(run_id), {"traceback": "e" * 60_000}, END], run_id, owner)
    held: list[int] = []
    original = Store.publish

    def noted(store: Store, bundles: Any) -> None:
        held.append(sum(bundle.held_bytes for bundle in bundles))
        original(store, bundles)

    monkeypatch.setattr(Store, "publish", noted)

    counts = Delivery(Spool(given), stored(given).store, batch_bytes=300_000).salvage()

    assert counts.recovered_runs == 20
    assert sum(held) > 1_200_000
    assert max(held) < 400_000
