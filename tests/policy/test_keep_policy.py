"""Which runs leave their artifacts for the keep rules."""

from __future__ import annotations

import signal
import sys
import threading
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dramatiq_diag.maintenance.cleanup import Cleanup
from dramatiq_diag.policy.keep_policy import KeepPolicy
from dramatiq_diag.policy.quantiles import MIN_COUNT
from dramatiq_diag.spool.delivery import Delivery
from dramatiq_diag.spool.directory import Spool
from dramatiq_diag.spool.entry import Entry
from dramatiq_diag.spool.reader import read_finished_run
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.testing.harness import change_recordings
from dramatiq_diag.text import MIB
from support import PATIENCE_S, eventually
from support.simulation import Simulation, simulated
from support.tasks import rss_of_runs


def executed(simulation: Simulation, actor: Any, took_s: float) -> str:
    """Executes a task that takes so many seconds. Returns: Its id."""
    run = simulation.begin(actor)
    simulation.clock.now_s += took_s
    simulation.end(run)
    return run.task_id


# What is kept.


def test_of_three_hundred_short_tasks_and_ten_slow_ones_the_ten_are_kept(settings, stored):
    given = settings(task_diagnostics=["memory", "pyinstrument"], keep_if="duration>5s, failed")
    saved: list[str] = []

    def note_save(recording: Any) -> None:
        save = recording.save

        def save_and_note() -> None:
            saved.append(recording.run.task_id)
            save()

        recording.save = save_and_note

    # When three hundred tasks take a moment each, and every thirtieth is followed by one of six seconds
    with simulated(given) as simulation:
        change_recordings(simulation.process.collectors["pyinstrument"], note_save)
        actor = simulation.actor()
        ids: dict[str, float] = {}
        for number in range(300):
            ids[executed(simulation, actor, 0.001)] = 0.001
            if number % 30 == 15:
                ids[executed(simulation, actor, 6.0)] = 6.0
        simulation.flush()
    slow = {task_id for task_id, took_s in ids.items() if took_s > 5}

    # Then the artifacts of those ten are stored, and of no other was a profile ever written
    reader = stored(given)
    assert len(slow) == 10
    assert set(saved) == slow
    blobs = [path for path in given.blob_dir.rglob("*") if path.is_file() and path.parent != given.blob_dir]
    assert len(blobs) == 2 * len(slow)

    # And the others have their rows, which say why there is nothing more
    runs = {run.task_id: run for run in reader.all_runs()}
    assert set(runs) == set(ids)
    for task_id in [*list(ids)[:120], *slow]:
        kept = task_id in slow
        assert runs[task_id].duration_ms == pytest.approx(ids[task_id] * 1000)
        assert runs[task_id].peak_rss_bytes > MIB
        for artifact in reader.artifacts(task_id).values():
            assert artifact.status == (ArtifactStatus.STORED if kept else ArtifactStatus.DROPPED)
            reason = "Dropped: none of its keep rules held (duration>5s, failed)."
            assert artifact.reason == (None if kept else reason)
            assert (artifact.blob_name is None) is not kept
            assert (artifact.expires_at is None) is not kept
    assert not reader.check()


def test_a_dropped_run_leaves_no_file_behind(bench, settings, stored, monkeypatch):
    given = settings(task_diagnostics=["memory", "pyinstrument", "memray"], keep_if="duration>1h")
    left: list[list[Path]] = []
    deliver = Delivery.deliver

    def look_then_deliver(delivery: Delivery, entries: Any, settled: Any) -> Any:
        left.append([path for entry in entries for path in given.spool.rglob(f"{entry.run_id}.*")])
        return deliver(delivery, entries, settled)

    monkeypatch.setattr(Delivery, "deliver", look_then_deliver)

    with bench(given) as tasks:
        task_id = tasks.run(sum, [1, 2])

    assert {artifact.status for artifact in stored(given).artifacts(task_id).values()} == {ArtifactStatus.DROPPED}
    assert [path.suffix for paths in left for path in paths] == [".entry"]


def test_a_run_that_failed_is_kept_and_one_without_fault_keeps_its_traceback_row(bench, settings, stored):
    def fail() -> None:
        raise ValueError("no such page")

    kept = settings(task_diagnostics=["memory"], keep_if="failed")
    with bench(kept) as tasks:
        failed, fine = tasks.run(fail), tasks.run(sum, [1])
    assert stored(kept).artifacts(failed)["memory_profile"].status == ArtifactStatus.STORED
    assert stored(kept).artifacts(fine)["memory_profile"].status == ArtifactStatus.DROPPED

    # A run that is not kept has its row as always, with what it raised
    dropped = settings(task_diagnostics=["memory"], keep_if="duration>1h")
    with bench(dropped) as tasks:
        failed = tasks.run(fail)
    (run,) = stored(dropped).runs(failed)
    assert (run.status, run.exception_message) == (RunStatus.FAILED, "no such page")
    assert "in fail" in (run.exception_traceback or "")


@pytest.mark.parametrize("names", [["memory"], ["pyinstrument"]])
def test_rss_rules_go_by_the_samples_or_by_a_look_at_both_ends(bench, settings, stored, monkeypatch, names):
    given = settings(task_diagnostics=names, keep_if="rss_growth>100MiB, peak_rss>1GiB")
    size_bytes = [0]
    rss_of_runs(monkeypatch, lambda: size_bytes[0])

    def become(mib: int) -> None:
        size_bytes[0] = mib * MIB

    # When a task grows by little, one by much, and one is large from the start
    ids = []
    with bench(given) as tasks:
        for name, before_mib, after_mib in (("little", 200, 250), ("much", 200, 301), ("large", 1025, 1025)):
            become(before_mib)
            ids.append(tasks.run(become, after_mib, actor_name=name))

    statuses = [next(iter(stored(given).artifacts(task_id).values())).status for task_id in ids]
    dropped, kept = ArtifactStatus.DROPPED, ArtifactStatus.STORED
    assert statuses == [dropped, kept, kept]


def test_without_samples_an_rss_rule_goes_by_the_looks_at_the_process_too(bench, settings, stored, monkeypatch):
    given = settings(task_diagnostics=["pyinstrument"], keep_if="peak_rss>1MiB")
    looks: list[int] = []

    # Given a process that is large between the start of a task and its end, where it is small
    def rss_bytes() -> int:
        if threading.current_thread().name != "dramatiq_diag.ticker":
            return 1
        looks.append(50 * MIB)
        return looks[-1]

    rss_of_runs(monkeypatch, rss_bytes)

    with bench(given) as tasks:

        def last() -> None:
            count = len(looks)
            eventually(lambda: len(looks) > count + 3, "the process was looked at")

        task_id = tasks.run(last)

    assert stored(given).artifacts(task_id)["pyinstrument_profile"].status == ArtifactStatus.STORED


def test_a_run_slower_than_the_actors_own_is_kept(settings, stored):
    given = settings(task_diagnostics=["memory"], keep_if="slower_than>p95")

    # Given an actor of which the usual is known, and another one of which it is not
    with simulated(given) as simulation:
        actor, other = simulation.actor(), simulation.actor("seldom")
        first = [executed(simulation, actor, 1.0) for _ in range(MIN_COUNT)]
        second = [executed(simulation, actor, took_s) for took_s in (0.5, 2.0)]
        seldom = executed(simulation, other, 0.5)
        simulation.flush()

    # Then its first runs are kept, and after that a slow one; the other's is kept as well
    status = {
        task_id: stored(given).artifacts(task_id)["memory_profile"].status for task_id in (*first, *second, seldom)
    }
    assert {status[task_id] for task_id in first} == {ArtifactStatus.STORED}
    assert [status[task_id] for task_id in second] == [ArtifactStatus.DROPPED, ArtifactStatus.STORED]
    assert status[seldom] == ArtifactStatus.STORED


@pytest.mark.parametrize(
    ("option", "status"),
    [
        ("failed", ArtifactStatus.DROPPED),
        (["failed", "duration>1h"], ArtifactStatus.DROPPED),
        ("duration>0ms", ArtifactStatus.STORED),
        ([], ArtifactStatus.STORED),
        ("", ArtifactStatus.STORED),
    ],
)
def test_the_rules_of_an_actor_replace_the_others(bench, settings, stored, option, status):
    given = settings(task_diagnostics=["memory"], keep_if="duration>2h")

    with bench(given) as tasks:
        task_id = tasks.run(sum, [1], diagnostics_keep_if=option)
        by_settings = tasks.run(sum, [1], actor_name="other")

    assert stored(given).artifacts(task_id)["memory_profile"].status == status
    assert stored(given).artifacts(by_settings)["memory_profile"].status == ArtifactStatus.DROPPED


def test_a_wrong_rule_of_an_actor_is_none_and_said_once(bench, settings, stored, caplog):
    given = settings(task_diagnostics=["memory"], keep_if="failed")

    with bench(given) as tasks:
        actor = tasks.actor(sum, diagnostics_keep_if="slow")
        ids = [actor.send([1]).message_id for _ in range(3)]
        tasks.finish()

    assert [stored(given).artifacts(task_id)["memory_profile"].status for task_id in ids] == ["stored"] * 3
    (record,) = [record for record in caplog.records if "diagnostics_keep_if" in record.getMessage()]
    assert "'slow'" in record.getMessage()
    assert "duration>5s" in record.getMessage()


def test_what_a_message_asks_for_is_kept(bench, settings, stored):
    given = settings(task_diagnostics=["memory"], task_diagnostics_on_request=["pyinstrument"], keep_if="failed")

    with bench(given) as tasks:
        actor = tasks.actor(sum)
        asked = actor.send_with_options(args=([1],), diagnostics=["pyinstrument"]).message_id
        other = actor.send([1]).message_id
        tasks.finish()

    assert stored(given).artifacts(asked)["pyinstrument_profile"].status == ArtifactStatus.STORED
    assert stored(given).artifacts(other)["memory_profile"].status == ArtifactStatus.DROPPED


def test_what_there_is_none_of_anyway_says_so_still(bench, settings, stored, monkeypatch):
    given = settings(task_diagnostics=["memory", "memray"], keep_if="failed")
    monkeypatch.setitem(sys.modules, "memray", None)

    with bench(given) as tasks:
        task_id = tasks.run(sum, [1])

    artifacts = stored(given).artifacts(task_id)
    assert artifacts["memory_profile"].status == ArtifactStatus.DROPPED
    assert artifacts["memray_profile"].status == ArtifactStatus.UNAVAILABLE


def test_a_judge_that_breaks_keeps_the_run(bench, settings, stored, monkeypatch, caplog):
    given = settings(task_diagnostics=["memory"], keep_if="failed")

    def broken(*_: Any) -> None:
        raise RuntimeError("no idea")

    monkeypatch.setattr(KeepPolicy, "unmet_rules", broken)
    with bench(given) as tasks:
        task_id = tasks.run(sum, [1])

    assert stored(given).artifacts(task_id)["memory_profile"].status == ArtifactStatus.STORED
    assert "could not be evaluated" in caplog.text


def test_dropped_rows_end_with_the_retention(bench, settings, stored):
    given = settings(task_diagnostics=["memory"], keep_if="failed", run_retention=0)

    with bench(given) as tasks:
        task_id = tasks.run(sum, [1])
    assert stored(given).runs(task_id)

    Cleanup(stored(given).store).run()
    assert not stored(given).runs(task_id)


# When a worker dies.


WORKER = """
import os, signal, sys, dramatiq
from dramatiq.brokers.stub import StubBroker
from dramatiq.broker import MessageProxy
from dramatiq_diag import Diagnostics, Settings
from dramatiq_diag.worker.run import Run

when = sys.argv[2]
broker = StubBroker(middleware=[])
given = Settings(
    data_dir=sys.argv[1], task_diagnostics=["memory", "pyinstrument"], keep_if="duration>1h, failed", watchdog=False)
diagnostics = Diagnostics(given)
broker.add_middleware(diagnostics)

def die(*args):
    os.kill(os.getpid(), signal.SIGKILL)

@dramatiq.actor(broker=broker)
def task():
    if when == "while it runs":
        die()

if when == "before it is saved":
    Run.save = die
worker = dramatiq.Worker(broker, worker_timeout=50, worker_threads=1)
worker.start()
task.send()
broker.join("default")
worker.join()
diagnostics.flush(170)
die()
"""


@pytest.mark.parametrize(
    ("when", "run_status", "status"),
    [
        ("while it runs", RunStatus.INTERRUPTED, ArtifactStatus.PARTIAL),
        ("before it is saved", RunStatus.SUCCEEDED, ArtifactStatus.DROPPED),
        ("afterwards", RunStatus.SUCCEEDED, ArtifactStatus.DROPPED),
    ],
)
def test_a_run_whose_worker_dies_is_judged_if_it_had_ended(settings, stored, python, when, run_status, status):
    # Given a worker that is killed at some point
    given = settings()
    process = python(WORKER, str(given.data_dir), when)
    assert process.wait(PATIENCE_S) == -signal.SIGKILL

    # When somebody salvages what it left
    reader = stored(given)
    Delivery(Spool(given), reader.store).salvage()

    # Then a run that was cut short is kept, as nobody judged it, and one that had ended is dropped
    (run,) = reader.all_runs()
    assert run.status == run_status
    artifacts = reader.artifacts(run.task_id)
    assert artifacts["memory_profile"].status == status
    if status == ArtifactStatus.DROPPED:
        assert {artifact.status for artifact in artifacts.values()} == {status}
    assert not reader.check()
    assert not list(given.spool.rglob("*.entry"))


@pytest.mark.parametrize(
    "dropped",
    [None, [], "failed", 17, [17], ["x" * 1000], ["failed"] * 1000, {"failed": 1}],
)
def test_a_verdict_that_is_not_ours_counts_for_nothing(spool_entry, dropped):
    entry: Entry = spool_entry({"dropped": dropped})

    bundle = read_finished_run(entry)
    assert bundle is not None
    (artifact,) = bundle.artifacts
    assert artifact.status == ArtifactStatus.STORED


@pytest.fixture
def spool_entry(tmp_path: Path) -> Any:
    def make(*records: dict[str, Any]) -> Entry:
        entry = Entry(tmp_path, uuid.uuid4())
        entry.create()
        now = datetime.now(UTC).isoformat()
        names = {"task_id": "1", "actor_name": "a", "queue_name": "q", "hostname": "h", "pid": 1, "started_at": now}
        declared = {"name": "memory_profile", "filename": "memory.datum", "media_type": "text/plain"}
        entry.append({"run": {"run_id": str(entry.run_id), **names, "artifacts": [declared]}})
        entry.append({"to": "memory_profile", "text": "0\t1\n"}, *records)
        entry.append({"end": {"status": "succeeded", "finished_at": now, "duration_ms": 1.0}})
        entry.flush()
        entry.close()
        return entry

    return make
