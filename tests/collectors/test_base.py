"""One contract over all collectors."""

from __future__ import annotations

import contextlib
import hashlib
import stat
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from dramatiq_diag.collectors.names import COLLECTOR_NAMES, all_names
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.testing.harness import change_recordings
from support import PATIENCE_S, eventually
from support.collectors import CONTRACT, rows_of, spin

VARIANTS = [
    pytest.param("memory", {}, id="memory"),
    pytest.param("memray", {}, id="memray"),
    pytest.param("pyinstrument", {}, id="pyinstrument"),
    pytest.param("pyinstrument", {"pyinstrument_engine": "profiler"}, id="pyinstrument-profiler"),
    pytest.param("logs", {}, id="logs"),
    pytest.param("debug-logs", {}, id="debug-logs"),
    pytest.param("resources", {}, id="resources"),
    pytest.param("accounting", {}, id="accounting"),
]


def test_every_collector_keeps_the_contract():
    assert set(CONTRACT) == set(COLLECTOR_NAMES)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
class TestContract:
    def test_its_artifact_is_named_and_stored_as_promised(self, bench, settings, stored, name, options):
        given = settings(task_diagnostics=[name], **options)
        key, filename, media_type, stored_as = CONTRACT[name]

        with bench(given) as tasks:
            task_id = tasks.run(spin, 0.02)

        artifacts = stored(given).artifacts(task_id)
        assert set(artifacts) == {key}
        artifact = artifacts[key]
        data = stored(given).data(task_id, key)
        assert (artifact.status, artifact.reason) == (ArtifactStatus.STORED, None)
        assert (artifact.filename, artifact.media_type, artifact.stored_as) == (filename, media_type, stored_as)
        assert artifact.size_bytes == len(data) > 0
        assert artifact.sha256 == hashlib.sha256(data).hexdigest()
        assert stat.S_IMODE(stored(given).path(task_id, key).stat().st_mode) == 0o600

    def test_what_it_leaves_in_the_spool_is_private(self, bench, settings, monkeypatch, name, options):
        given = settings(task_diagnostics=[name], **options)
        modes: dict[str, int] = {}

        # Given a look at the spool while a run is on its way to the store
        from dramatiq_diag.store.store import Store

        publish = Store.publish

        def look_then_publish(store: Store, bundles: Any) -> None:
            modes.update({str(path): stat.S_IMODE(path.stat().st_mode) for path in given.spool.rglob("*")})
            publish(store, bundles)

        monkeypatch.setattr(Store, "publish", look_then_publish)

        with bench(given) as tasks:
            tasks.run(spin, 0.02)

        # Then directories are 0700 and files 0600
        assert len(modes) >= 3 - (name not in ("memray", "pyinstrument"))
        assert set(modes.values()) == {0o700, 0o600}

    def test_a_task_that_raises_has_its_artifact(self, bench, settings, stored, name, options):
        given = settings(task_diagnostics=[name], **options)

        def fail() -> None:
            spin(0.02)
            raise RuntimeError("after some work")

        with bench(given) as tasks:
            task_id = tasks.run(fail)

        assert stored(given).runs(task_id)[0].status == RunStatus.FAILED
        assert stored(given).artifacts(task_id)[CONTRACT[name][0]].status == ArtifactStatus.STORED

    def test_runs_on_two_threads_do_not_share_state(self, bench, settings, stored, name, options):
        given = settings(task_diagnostics=[name], memray_wait=PATIENCE_S, **options)

        with bench(given, threads=2) as tasks:
            actor = tasks.actor(spin)
            ids = [actor.send(0.02).message_id for _ in range(6)]
            tasks.finish()

        for task_id in ids:
            assert stored(given).artifacts(task_id)[CONTRACT[name][0]].status == ArtifactStatus.STORED
            data = stored(given).data(task_id, CONTRACT[name][0])
            named = [other for other in ids if other.encode() in data]
            if name == "accounting":  # It names the neighbours.
                assert task_id not in named
            else:
                assert named == ([task_id] if name == "pyinstrument" else [])
            if name == "resources":
                assert data.count(b"\n") == 3
            if name == "memory":
                elapsed = [row[0] for row in rows_of(data.decode())]
                assert elapsed == sorted(elapsed)

    @pytest.mark.parametrize("step", ["record", "start", "stop", "save"])
    def test_one_that_breaks_costs_itself_alone(self, bench, settings, stored, caplog, name, options, step):
        given = settings(task_diagnostics=[*all_names(), name], **options)
        if options:
            given = settings(task_diagnostics=["memory", "pyinstrument"], **options)
        calls: list[int] = []

        # Given a collector that raises at one step, with its work done, as a full disk or a bug would have it
        def break_step(recording: Any) -> None:
            if step == "record":
                raise OSError(28, "No space left on device")
            original = getattr(recording, step)

            def broken() -> None:
                with contextlib.suppress(OSError):
                    original()
                if step == "start":
                    recording.stop()
                raise OSError(28, "No space left on device")

            setattr(recording, step, broken)

        # When three tasks run
        with bench(given) as tasks, caplog.at_level("WARNING"):
            change_recordings(tasks.diagnostics.process.collectors[name], break_step)
            actor = tasks.actor(lambda: calls.append(1), actor_name="counted")
            ids = [actor.send().message_id for _ in range(3)]
            tasks.finish()

        # Then the tasks are unharmed, that artifact says why it failed, the others are whole, and one warning is logged
        assert calls == [1, 1, 1]
        for task_id in ids:
            assert stored(given).runs(task_id)[0].status == RunStatus.SUCCEEDED
            for key, artifact in stored(given).artifacts(task_id).items():
                if key == CONTRACT[name][0]:
                    assert artifact.status == ArtifactStatus.FAILED
                    assert "No space left on device" in artifact.reason
                else:
                    assert (key, artifact.status, artifact.reason) == (key, ArtifactStatus.STORED, None)
        (record,) = caplog.records
        assert name in record.getMessage()
        assert record.exc_info is not None
        assert not stored(given).check()


def make_slow(tasks: Any, step: str, taken: Callable[..., object], timeout_s: float = 0.1) -> list[Any]:
    """Replaces a step of `memory`, which is no longer known to return at once. Returns: Its recordings, when made.

    The time-out is that of this step alone: on a busy machine another one may take as long.
    """
    recordings: list[Any] = []
    before = {"stop": "start", "save": "stop", "discard": "stop"}.get(step)

    def change(recording: Any) -> None:
        recordings.append(recording)
        setattr(recording, step, partial(taken, recording, getattr(recording, step)))
        recording.runs_inline, recording.step_timeout_s = False, timeout_s
        if before is not None:
            recording.step_timeout_s = PATIENCE_S
            setattr(recording, before, partial(hurry_after, recording, getattr(recording, before)))

    def hurry_after(recording: Any, original: Callable[[], None]) -> None:
        original()
        recording.step_timeout_s = timeout_s

    change_recordings(tasks.diagnostics.process.collectors["memory"], change)
    return recordings


@pytest.mark.parametrize("step", ["start", "stop", "save"])
def test_a_collector_that_hangs_costs_itself_once(bench, settings, stored, caplog, step):
    given = settings(task_diagnostics=["memory", "pyinstrument"])
    go_on, calls = threading.Event(), []

    # Given a collector that is not known to be quick, and hangs at one step
    def hang(recording: Any, original: Callable[[], None]) -> None:
        original()
        if step == "start":
            recording.stop()
        go_on.wait(PATIENCE_S)

    # When three tasks run
    with bench(given) as tasks, caplog.at_level("WARNING"):
        make_slow(tasks, step, hang)
        actor = tasks.actor(lambda: calls.append(1), actor_name="counted")
        ids = []
        for _ in range(3):
            ids.append(actor.send().message_id)
            tasks.finish()
        go_on.set()
        eventually(lambda: "dramatiq_diag.bounded" not in _thread_names(), "the abandoned thread ended")

    # Then they are unharmed, the first artifact says that it was abandoned, and the later ones that it was left out
    assert calls == [1, 1, 1]
    found = [stored(given).artifacts(task_id) for task_id in ids]
    assert {artifacts["pyinstrument_profile"].status for artifacts in found} == {ArtifactStatus.STORED}
    first, *later = [artifacts["memory_profile"] for artifacts in found]
    assert first.status == ArtifactStatus.FAILED
    assert first.reason == f"StepTimeoutError at {step}: It did not return within 0.1 s and was abandoned."
    assert {artifact.status for artifact in later} == {ArtifactStatus.SKIPPED}
    assert {artifact.reason for artifact in later} == {"It hung in another run of this process."}
    (record,) = caplog.records
    assert "'memory'" in record.getMessage()


def test_runs_beside_one_in_which_a_collector_hangs_do_not_wait_for_it_either(bench, settings, stored):
    given = settings(task_diagnostics=["memory"])
    go_on, waited = threading.Event(), []
    both_run = threading.Barrier(2)

    # Given two runs at once, of a collector that hangs when it is stopped
    def hang(_: Any, original: Callable[[], None]) -> None:
        original()
        waited.append(1)
        go_on.wait(PATIENCE_S)

    first_ended = threading.Event()

    def work(number: int) -> None:
        both_run.wait(PATIENCE_S)
        if number:
            first_ended.wait(PATIENCE_S)

    with bench(given, threads=2) as tasks:
        recordings = make_slow(tasks, "stop", hang)
        actor = tasks.actor(work)
        ids = [actor.send(number).message_id for number in range(2)]
        # When the first has been given up
        eventually(lambda: tasks.diagnostics.process.hung, "the collector is known to hang")
        first_ended.set()
        tasks.finish()
        for recording in recordings:
            recording.end_early("That of the second run was never told to stop.")
        go_on.set()
        eventually(lambda: "dramatiq_diag.bounded" not in _thread_names(), "the abandoned thread ended")

    # Then the second did not wait
    assert waited == [1]
    reasons = {stored(given).artifacts(task_id)["memory_profile"].reason.partition(" at stop: ")[2] for task_id in ids}
    assert reasons == {"It did not return within 0.1 s and was abandoned.", "It hung in another run of this process."}


def test_a_collector_that_hangs_when_it_is_to_drop_something_costs_itself(bench, settings, stored):
    given = settings(task_diagnostics=["memory", "pyinstrument"], keep_if="duration>1h")
    go_on = threading.Event()

    with bench(given) as tasks:
        make_slow(tasks, "discard", lambda *_: go_on.wait(PATIENCE_S))
        ids = [tasks.run(lambda: None, actor_name=name) for name in ("first", "second")]
        go_on.set()
        eventually(lambda: "dramatiq_diag.bounded" not in _thread_names(), "the abandoned thread ended")

    first, second = (stored(given).artifacts(task_id) for task_id in ids)
    assert (
        first["memory_profile"].reason
        == "StepTimeoutError at discard: It did not return within 0.1 s and was abandoned."
    )
    assert second["memory_profile"].reason == "It hung in another run of this process."
    assert {found["pyinstrument_profile"].status for found in (first, second)} == {ArtifactStatus.DROPPED}


@pytest.mark.parametrize("error", [RuntimeError("broken"), SystemExit(3)])
def test_what_a_slow_collector_raises_is_told_as_ever(bench, settings, stored, error):
    given = settings(task_diagnostics=["memory"])

    def fail(*_: Any) -> None:
        raise error

    with bench(given) as tasks:
        make_slow(tasks, "save", fail, timeout_s=PATIENCE_S)
        task_id = tasks.run(lambda: None, actor_name="work")

    artifact = stored(given).artifacts(task_id)["memory_profile"]
    assert (artifact.status, artifact.reason) == (ArtifactStatus.FAILED, f"{type(error).__name__} at save: {error}")


def _thread_names() -> set[str]:
    return {thread.name for thread in threading.enumerate()}
