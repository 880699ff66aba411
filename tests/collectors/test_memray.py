"""memray's allocation profile: what is in it, and whose turn it is."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import memray
import pyinstrument
from dramatiq.middleware import Middleware

from dramatiq_diag.statuses import ArtifactStatus
from dramatiq_diag.testing.harness import change_recordings
from dramatiq_diag.text import MIB
from support import PATIENCE_S, eventually
from support.collectors import mixed_work, peak_of, spin
from support.tasks import Gate

# memray.


def allocate_pages(megabytes: int) -> list[bytes]:
    return [b"x" * MIB for _ in range(megabytes)]


def test_the_capture_names_the_line_that_allocated(bench, settings, stored):
    given = settings(task_diagnostics=["memray"])

    def hold_pages() -> None:
        pages = allocate_pages(30)
        assert len(pages) == 30

    with bench(given) as tasks:
        task_id = tasks.run(hold_pages)

    path = stored(given).path(task_id, "memray_profile")
    _, by_function, _ = peak_of(path)
    assert by_function["allocate_pages"] >= 30 * MIB
    assert by_function["hold_pages"] >= 30 * MIB
    with memray.FileReader(path) as reader:
        records = list(reader.get_high_watermark_allocation_records())
        biggest = max(records, key=lambda record: record.size)
        # memray hides the frames above the Tracker's start; the task's own must all be there
        assert biggest.stack_trace()[-1][0] == "hold_pages"
        lines = {(frame[0], frame[1], frame[2]) for frame in biggest.stack_trace()}
    assert ("allocate_pages", __file__, allocate_pages.__code__.co_firstlineno + 1) in lines


def test_the_tasks_thread_can_be_told_from_the_others(bench, settings, stored):
    given = settings(task_diagnostics_on_request=["memray"])
    started, allocated = threading.Event(), threading.Event()

    def tracked_task() -> None:
        started.set()
        assert allocated.wait(PATIENCE_S)
        assert len(allocate_pages(40)) == 40

    def neighbour() -> None:
        assert started.wait(PATIENCE_S)
        kept.extend(allocate_pages(20))
        allocated.set()

    kept: list[bytes] = []
    with bench(given, threads=2) as tasks:
        task_id = tasks.actor(tracked_task, diagnostics=["memray"]).send().message_id
        tasks.actor(neighbour).send()
        tasks.finish()

    metadata, _, by_thread = peak_of(stored(given).path(task_id, "memray_profile"))
    own = by_thread.pop(metadata.main_thread_id)
    assert 40 * MIB <= own < 50 * MIB
    assert max(by_thread.values()) >= 20 * MIB


def test_a_second_task_is_skipped_with_the_id_of_the_holder(bench, settings, stored):
    given = settings(task_diagnostics=["memray", "memory"])
    gate = Gate()

    # Given a task that holds the process's one Tracker
    with bench(given, threads=2) as tasks:
        holder = tasks.actor(gate.wait).send().message_id
        assert gate.reached.wait(PATIENCE_S)
        # When another runs meanwhile
        skipped = tasks.actor(gate.opened.set, actor_name="second").send().message_id
        tasks.finish()

    # Then it is skipped and says which task held it; its other artifact is whole
    artifacts = stored(given).artifacts(skipped)
    assert artifacts["memray_profile"].status == ArtifactStatus.SKIPPED
    assert holder in artifacts["memray_profile"].reason
    assert artifacts["memory_profile"].status == ArtifactStatus.STORED
    assert stored(given).artifacts(holder)["memray_profile"].status == ArtifactStatus.STORED


def test_with_memray_wait_tasks_take_turns(bench, settings, stored):
    given = settings(task_diagnostics=["memray"], memray_wait=PATIENCE_S)

    with bench(given, threads=4) as tasks:
        actor = tasks.actor(spin)
        ids = [actor.send(0.02).message_id for _ in range(8)]
        tasks.finish()

    assert {stored(given).artifacts(task_id)["memray_profile"].status for task_id in ids} == {ArtifactStatus.STORED}


def test_a_task_that_waited_in_vain_names_the_holder(bench, settings, stored):
    given = settings(task_diagnostics=["memray"], memray_wait=0.05)
    gate = Gate()

    with bench(given, threads=2) as tasks:
        holder = tasks.actor(gate.wait).send().message_id
        assert gate.reached.wait(PATIENCE_S)
        skipped = tasks.actor(gate.opened.set, actor_name="second").send().message_id
        tasks.finish()

    assert holder in stored(given).artifacts(skipped)["memray_profile"].reason


def test_a_task_that_loses_its_slot_while_it_waits_starts_no_tracker(bench, settings, stored):
    given = settings(task_diagnostics=["memray"], memray_wait=PATIENCE_S)
    gate, traced = Gate(), list[bool]()

    def look() -> None:
        traced.append(sys.getprofile() is not None)

    with bench(given, threads=2) as tasks:
        process = tasks.diagnostics.process
        holder = tasks.actor(gate.wait).send().message_id
        assert gate.reached.wait(PATIENCE_S)
        waiting = tasks.actor(look).send().message_id
        runs = process.runs
        eventually(
            lambda: [run for run in runs.values() if run.task_id == waiting and run.recordings.running], "it waits"
        )
        next(run for run in runs.values() if run.task_id == waiting).lose_slot()
        gate.opened.set()
        tasks.finish()

    assert traced == [False]
    assert stored(given).artifacts(holder)["memray_profile"].status == ArtifactStatus.STORED


def test_a_capture_ends_at_its_limit_and_is_partial(bench, settings, stored):
    given = settings(task_diagnostics=["memray", "pyinstrument"], memray_max_bytes=200_000)
    recordings: list[Any] = []

    def allocate_until_it_ends() -> None:
        until = time.monotonic() + PATIENCE_S
        while recordings[0].tracker is not None and time.monotonic() < until:
            allocate_pages(1)
            [str(number) + "x" for number in range(5000)]
        profile_functions.append(sys.getprofile())

    profile_functions: list[Any] = []
    with bench(given) as tasks:
        change_recordings(tasks.diagnostics.process.collectors["memray"], recordings.append)
        # When a task allocates past the limit
        task_id = tasks.run(allocate_until_it_ends)
        after = tasks.run(spin, 0.0)

    # Then the capture is partial, says so, and can be read
    artifact = stored(given).artifacts(task_id)["memray_profile"]
    assert artifact.status == ArtifactStatus.PARTIAL
    assert "200000" in artifact.reason
    assert artifact.size_bytes > 200_000
    _, by_function, _ = peak_of(stored(given).path(task_id, "memray_profile"))
    assert "allocate_until_it_ends" in by_function
    # And the next task has the Tracker to itself
    assert stored(given).artifacts(after)["memray_profile"].status == ArtifactStatus.STORED


def test_a_task_that_uses_memray_itself_keeps_it(bench, settings, stored, tmp_path):
    given = settings(task_diagnostics=["memray"])

    with bench(given) as tasks, memray.Tracker(tmp_path / "application.bin"):
        task_id = tasks.run(spin, 0.01)

    artifact = stored(given).artifacts(task_id)["memray_profile"]
    assert artifact.status == ArtifactStatus.SKIPPED
    assert "The application itself uses memray" in artifact.reason
    with memray.FileReader(tmp_path / "application.bin") as reader:
        assert reader.metadata.total_allocations > 0


def test_a_capture_of_a_task_that_replaces_the_profile_function_is_partial_and_says_why(bench, settings, stored):
    given = settings(task_diagnostics=["memray"])

    def profile_itself() -> None:
        sys.setprofile(lambda *_: None)
        sys.setprofile(None)

    with bench(given) as tasks:
        ids = [tasks.run(fn) for fn in (profile_itself, mixed_work)]

    replaced, whole = (stored(given).artifacts(task_id)["memray_profile"] for task_id in ids)
    assert replaced.status == ArtifactStatus.PARTIAL
    assert replaced.reason.startswith("The task replaced memray's profile function on its thread")
    assert (whole.status, whole.reason) == (ArtifactStatus.STORED, None)


def test_memray_is_declined_within_another_profiler_and_works_after_it(bench, settings, stored):
    given = settings(task_diagnostics=["memray"])

    class Profiled(Middleware):
        """The application's own profiling of some tasks."""

        def before_process_message(self, broker: Any, message: Any) -> None:
            self.profiler = pyinstrument.Profiler() if message.actor_name == "profiled" else None
            if self.profiler is not None:
                self.profiler.start()

        def after_process_message(self, broker: Any, message: Any, **outcome: Any) -> None:
            if self.profiler is not None:
                self.profiler.stop()

    with bench(given, Profiled()) as tasks:
        ids = [tasks.run(mixed_work, actor_name=name) for name in ("profiled", "bare")]

    profiled, bare = (stored(given).artifacts(task_id)["memray_profile"] for task_id in ids)
    assert profiled.status == ArtifactStatus.SKIPPED
    assert profiled.reason.startswith("Another profiler is active on this thread")
    assert bare.status == ArtifactStatus.STORED
