"""What begins late is noticed neither by the task nor by other runs."""

from __future__ import annotations

import logging
import os
import threading
import time
from types import SimpleNamespace
from typing import Any

import memray
import pytest

from dramatiq_diag.collectors.memray import MemrayCollector, _MemrayRecording
from dramatiq_diag.runtime.profile_hook import ProfileHook
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.worker.late_start import LateStart
from dramatiq_diag.worker.tuning import Tuning
from support import PATIENCE_S, eventually
from support.triggers import LATE, LATER, NOW, Runs, spin_until


@pytest.mark.parametrize("step", ["record", "start", "entered", "stop", "save"])
def test_one_that_breaks_late_costs_itself_alone(bench, settings, stored, monkeypatch, caplog, step):
    given = settings(
        task_diagnostics=["pyinstrument"], task_diagnostics_on_request=LATE, triggers=f"{NOW}: memray, memory"
    )
    owner = MemrayCollector if step == "record" else _MemrayRecording
    original = getattr(owner, step)

    def broken(*arguments: Any) -> Any:
        if step != "record":
            original(*arguments)
        raise OSError("no room")

    monkeypatch.setattr(owner, step, broken)
    with bench(given) as tasks:
        runs = Runs(tasks)
        task_id = tasks.run(lambda: spin_until(runs.begun("memray", "memory")), actor_name="a")
        monkeypatch.undo()
        after = tasks.run(lambda: spin_until(runs.begun("memray", "memory")), actor_name="b")

    assert stored(given).runs(task_id)[0].status == RunStatus.SUCCEEDED
    artifacts = stored(given).artifacts(task_id)
    statuses = {name: artifact.status for name, artifact in artifacts.items()}
    assert statuses.pop("memray_profile") == ArtifactStatus.FAILED
    assert set(statuses.values()) == {ArtifactStatus.STORED}
    assert "OSError at " in artifacts["memray_profile"].reason
    assert [r.levelno for r in caplog.records if "'memray'" in r.getMessage()] == [logging.WARNING]
    if step in ("record", "save"):  # The others leave a Tracker behind, as they may when started early.
        assert stored(given).artifacts(after)["memray_profile"].status == ArtifactStatus.STORED


def test_a_run_that_ends_while_its_trigger_starts_something_does_not_wait(bench, settings, stored, monkeypatch):
    given = settings(task_diagnostics_on_request=["memray"], triggers=f"{NOW}: memray")
    starting, ended = threading.Event(), threading.Event()
    start = _MemrayRecording.start

    def start_slowly(recording: _MemrayRecording) -> None:
        starting.set()
        assert ended.wait(PATIENCE_S)
        start(recording)

    monkeypatch.setattr(_MemrayRecording, "start", start_slowly)

    # When a run ends, and is published, while the ticker's thread is still about to start a Tracker
    with bench(given) as tasks:
        task_id = tasks.run(lambda: starting.wait(PATIENCE_S), actor_name="a")
        artifact = stored(given).artifacts(task_id)["memray_profile"]
        ended.set()
        # Then the Tracker is taken back, and the next one can have it
        monkeypatch.undo()
        hook = tasks.diagnostics.process.services.profile_hook
        runs = Runs(tasks)
        eventually(lambda: is_free(hook) and memray_is_idle(), "the Tracker was stopped")
        after = tasks.run(lambda: spin_until(runs.begun("memray")), actor_name="b")
        left = [path.name for path in given.spool.rglob("*memray*")]

    assert (artifact.status, artifact.reason) == ("skipped", "The run ended while its trigger was starting it.")
    assert stored(given).artifacts(after)["memray_profile"].status == ArtifactStatus.STORED
    assert left == []


def is_free(hook: ProfileHook) -> bool:
    reason = hook.acquire_shared(SimpleNamespace(settled=True), "another task")
    hook.release_shared()
    return reason is None


def memray_is_idle() -> bool:
    try:
        with memray.Tracker(os.devnull):
            return True
    except RuntimeError:
        return False


def test_many_runs_end_at_about_the_moment_their_triggers_fire(bench, settings, stored, caplog):
    names = ["memory", "pyinstrument", "memray"]
    given = settings(task_diagnostics_on_request=names, triggers="after 2ms: memory, pyinstrument, memray, stacks")

    # When tasks of 0 to 6 ms run side by side, and the triggers are looked at each millisecond
    with bench(given, threads=4, tuning=Tuning(rss_s=0.001)) as tasks, caplog.at_level(logging.WARNING):
        actor = tasks.actor(time.sleep)
        ids = [actor.send(number % 7 / 1000).message_id for number in range(200)]
        tasks.finish()

    # Then each artifact has a status that is true
    for task_id in ids:
        for artifact in stored(given).artifacts(task_id).values():
            assert artifact.status in (ArtifactStatus.STORED, ArtifactStatus.SKIPPED)
            assert (artifact.reason is None) == (artifact.status == ArtifactStatus.STORED)
    assert caplog.records == []
    assert not stored(given).check()


def test_a_tracker_that_another_run_has_is_not_waited_for(bench, settings, stored):
    given = settings(
        task_diagnostics_on_request=["memray"], triggers=f"{NOW}: memray, stacks", memray_wait=PATIENCE_S * 10
    )
    both = threading.Barrier(2)

    with bench(given, threads=2) as tasks:
        runs = Runs(tasks)

        def work() -> None:
            spin_until(runs.begun("memray"))
            both.wait(PATIENCE_S)

        actor = tasks.actor(work)
        ids = [actor.send().message_id for _ in range(2)]
        tasks.finish()

    statuses = {stored(given).artifacts(task_id)["memray_profile"].status for task_id in ids}
    assert statuses == {ArtifactStatus.STORED, ArtifactStatus.SKIPPED}


def test_an_interrupt_in_the_end_of_what_began_late_changes_nothing(bench, settings, stored, monkeypatch):
    from dramatiq.middleware import Interrupt

    given = settings(task_diagnostics_on_request=["memory"], triggers=f"{NOW}: memory; {LATER}: stacks")
    end = LateStart.end
    struck: list[int] = []

    def end_and_strike(late: LateStart) -> None:
        end(late)
        if not struck:
            struck.append(1)
            raise Interrupt

    monkeypatch.setattr(LateStart, "end", end_and_strike)
    with bench(given) as tasks:
        runs = Runs(tasks)
        task_id = tasks.run(lambda: spin_until(runs.begun("memory")), actor_name="a")

    assert struck
    (run,) = stored(given).runs(task_id)
    assert run.status == RunStatus.SUCCEEDED
    statuses = {name: artifact.status for name, artifact in stored(given).artifacts(task_id).items()}
    assert statuses == {"memory_profile": ArtifactStatus.STORED, "task_logs": ArtifactStatus.SKIPPED}
