"""Triggers that began nothing: what is said of them, and whose triggers count."""

from __future__ import annotations

import json
import logging
import sys
import time

import pytest

from dramatiq_diag.collectors import Recording
from dramatiq_diag.collectors.memory import _MemoryRecording
from dramatiq_diag.policy.propagation import TRIGGERS_OPTION
from dramatiq_diag.runtime.rss import RssReader
from dramatiq_diag.statuses import ArtifactStatus
from support import eventually
from support.triggers import LATER, NOW, Runs, spin_until


def test_a_run_that_is_shorter_than_its_triggers_says_so(bench, settings, stored):
    given = settings(
        task_diagnostics=["memory"],
        task_diagnostics_on_request=["pyinstrument", "memray"],
        triggers="after 30s: pyinstrument, stacks; rss>1000GiB: memray, stacks",
    )

    with bench(given) as tasks:
        task_id = tasks.run(sum, [1])

    artifacts = stored(given).artifacts(task_id)
    assert {name: (artifact.status, artifact.reason) for name, artifact in artifacts.items()} == {
        "memory_profile": ("stored", None),
        "pyinstrument_profile": ("skipped", "Its trigger did not fire: after 30s."),
        "memray_profile": ("skipped", "Its trigger did not fire: rss>1000GiB."),
        "task_logs": ("skipped", "Its trigger did not fire: after 30s, rss>1000GiB."),
    }


def test_a_collector_that_runs_from_the_start_has_no_use_for_its_trigger(bench, settings, stored):
    given = settings(task_diagnostics=["memory", "pyinstrument"], triggers=f"{NOW}: pyinstrument; {LATER}: memory")

    with bench(given) as tasks:
        task_id = tasks.run(time.sleep, 0.05)

    artifacts = stored(given).artifacts(task_id)
    assert {artifact.status for artifact in artifacts.values()} == {ArtifactStatus.STORED}
    assert "from " not in json.loads(stored(given).data(task_id, "pyinstrument_profile"))["target_description"]


def test_two_triggers_begin_a_collector_once(bench, settings, stored, monkeypatch):
    given = settings(task_diagnostics_on_request=["memory"], triggers=f"{NOW}: memory; after 2ms: memory, stacks")
    started: list[Recording] = []
    start = _MemoryRecording.start

    def start_and_note(recording: _MemoryRecording) -> None:
        started.append(recording)
        start(recording)

    monkeypatch.setattr(_MemoryRecording, "start", start_and_note)
    with bench(given) as tasks:
        runs = Runs(tasks)
        task_id = tasks.run(lambda: eventually(runs.wrote_stacks(), "both fired"), actor_name="a")

    assert len(started) == 1
    assert stored(given).artifacts(task_id)["memory_profile"].status == ArtifactStatus.STORED


def test_runs_without_any_selection_have_triggers_unless_they_want_nothing(bench, settings, stored):
    given = settings(task_diagnostics_on_request=["memory"], triggers=f"{LATER}: memory")

    with bench(given) as tasks:
        watched = tasks.run(sum, [1], actor_name="watched")
        tasks.run(sum, [1], actor_name="nothing", diagnostics=[])
        tasks.run(sum, [1], actor_name="none", diagnostics_triggers="")
        tasks.actor(sum, actor_name="other").send_with_options(args=([1],), diagnostics=[])
        tasks.finish()

    assert [run.task_id for run in stored(given).all_runs()] == [watched]
    assert stored(given).artifacts(watched)["memory_profile"].status == ArtifactStatus.SKIPPED


def test_the_triggers_of_an_actor_replace_the_others(bench, settings, stored):
    given = settings(task_diagnostics=["memory"], task_diagnostics_on_request=["memray"], triggers=f"{LATER}: stacks")

    with bench(given) as tasks:
        own = tasks.run(sum, [1], actor_name="own", diagnostics_triggers="rss>1000GiB: memray")
        none = tasks.run(sum, [1], actor_name="none", diagnostics_triggers=[])
        by_settings = tasks.run(sum, [1])

    assert set(stored(given).artifacts(own)) == {"memory_profile", "memray_profile"}
    assert set(stored(given).artifacts(none)) == {"memory_profile"}
    assert set(stored(given).artifacts(by_settings)) == {"memory_profile", "task_logs"}


@pytest.mark.parametrize("option", ["after 3: stacks", "after 3s: memray", "after 3s: logs", 17])
def test_a_wrong_trigger_of_an_actor_is_none_and_said_once(bench, settings, stored, caplog, option):
    given = settings(task_diagnostics=["memory"], triggers=f"{LATER}: stacks")

    with bench(given) as tasks:
        actor = tasks.actor(sum, diagnostics_triggers=option)
        ids = [actor.send([1]).message_id for _ in range(3)]
        tasks.finish()

    assert [set(stored(given).artifacts(task_id)) for task_id in ids] == [{"memory_profile"}] * 3
    (record,) = [record for record in caplog.records if TRIGGERS_OPTION in record.getMessage()]
    assert "after 30s: pyinstrument" in record.getMessage()


def test_an_actor_cannot_have_the_other_engine_begin_late_either(bench, settings, stored, caplog):
    given = settings(task_diagnostics=["pyinstrument"], pyinstrument_engine="profiler")

    with bench(given) as tasks:
        task_id = tasks.run(sum, [1], diagnostics_triggers=f"{NOW}: pyinstrument")

    (record,) = [record for record in caplog.records if TRIGGERS_OPTION in record.getMessage()]
    assert "cannot join later" in record.getMessage()
    assert stored(given).artifacts(task_id)["pyinstrument_profile"].status == ArtifactStatus.STORED


def test_what_a_message_says_of_the_engine_holds_for_what_begins_late_too(bench, settings, stored):
    given = settings(task_diagnostics_on_request=["memory", "pyinstrument", "memray"], triggers=f"{LATER}: stacks")

    with bench(given) as tasks:
        actor = tasks.actor(sum, actor_name="work")
        message = actor.send_with_options(args=([1],), diagnostics={"pyinstrument": {"engine": "profiler"}})
        tasks.finish()
        after = actor.send_with_options(args=([1],), diagnostics=["memray"])
        tasks.finish()

    assert stored(given).artifacts(message.message_id)["pyinstrument_profile"].status == ArtifactStatus.STORED
    assert stored(given).artifacts(after.message_id)["memray_profile"].status == ArtifactStatus.STORED


def test_a_look_that_fails_costs_that_look_alone(bench, settings, stored, monkeypatch, caplog):
    given = settings(task_diagnostics=["memory"], triggers="after 1s: stacks")
    read, fails, failed = RssReader.rss_bytes, [], []

    def out_of_descriptors(reader: RssReader) -> int:
        if fails:
            failed.append(1)
            raise OSError(24, "Too many open files")
        return read(reader)

    monkeypatch.setattr(RssReader, "rss_bytes", out_of_descriptors)

    with bench(given) as tasks, caplog.at_level(logging.WARNING):
        runs = Runs(tasks)

        def work() -> None:
            fails.append(1)
            eventually(lambda: len(failed) > 1, "looks failed")
            fails.clear()
            eventually(runs.wrote_stacks(), "a later look fired the trigger")

        task_id = tasks.run(work)

    assert stored(given).artifacts(task_id)["task_logs"].status == ArtifactStatus.STORED
    assert caplog.text.count("The RSS could not be looked at.") == 1


def test_a_run_of_triggers_alone_knows_its_parent(bench, settings, stored):
    given = settings(task_diagnostics_on_request=["memory"], triggers=f"{LATER}: stacks")

    with bench(given) as tasks:
        child = tasks.actor(lambda: None, actor_name="child")
        tasks.actor(lambda: child.send() and None, actor_name="top").send()
        tasks.finish()

    runs = {run.actor_name: run for run in stored(given).all_runs()}
    assert runs["child"].parent_run_id == runs["top"].run_id


def test_one_that_is_not_installed_says_so(bench, settings, stored, monkeypatch):
    monkeypatch.setitem(sys.modules, "memray", None)
    given = settings(task_diagnostics_on_request=["memray"], triggers=f"{NOW}: memray")

    with bench(given) as tasks:
        runs = Runs(tasks)
        task_id = tasks.run(lambda: spin_until(runs.begun("memray")), actor_name="a")

    artifact = stored(given).artifacts(task_id)["memray_profile"]
    assert artifact.status == ArtifactStatus.UNAVAILABLE
    assert "pip install" in artifact.reason
