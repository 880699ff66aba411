"""A collector of which a step hung is left out until the step returns: a machine may pause for seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from dramatiq_diag.collectors.base import Collector, RunContext
from dramatiq_diag.collectors.memory import MemoryCollector
from dramatiq_diag.statuses import ArtifactStatus
from dramatiq_diag.worker.hung_collectors import HungCollectors
from support import PATIENCE_S, eventually


def collector(settings: Callable[..., Any]) -> Collector:
    return MemoryCollector(settings())


def test_one_is_left_out_until_all_of_its_steps_have_returned(settings: Callable[..., Any]) -> None:
    hung, one, other = HungCollectors(), collector(settings), collector(settings)
    steps = [False, False]
    for number in range(2):
        hung.add(one, lambda number=number: steps[number])  # type: ignore[misc]
    assert one in hung
    assert other not in hung
    steps[0] = True
    assert one in hung
    steps[1] = True
    assert one not in hung


def test_one_that_hangs_again_and_again_is_left_out_for_good(settings: Callable[..., Any]) -> None:
    hung, one = HungCollectors(), collector(settings)
    hung.add(one, lambda: True)
    hung.add(one, lambda: True)
    assert one not in hung
    hung.add(one, lambda: True)
    assert one in hung


def test_a_look_that_does_not_return_costs_neither_the_artifact_nor_later_runs(
    bench: Any, settings: Callable[..., Any], stored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = settings(task_diagnostics=["memory"])
    go_on, started, looks = threading.Event(), threading.Event(), list[int]()
    record = MemoryCollector.record

    def record_slowly(collector: MemoryCollector, run: RunContext) -> Any:
        recording: Any = record(collector, run)
        recording.runs_inline, recording.step_timeout_s = False, 0.2
        recording.so_far = lambda: looks.append(1) or go_on.wait(PATIENCE_S)
        return recording

    def work() -> None:
        started.set()
        assert go_on.wait(PATIENCE_S)

    monkeypatch.setattr(MemoryCollector, "record", record_slowly)
    with bench(given) as tasks:
        task_id = tasks.actor(work).send().message_id
        assert started.wait(PATIENCE_S)
        (run,) = tasks.diagnostics.process.runs.values()
        for _ in range(3):
            assert [found for _, found in run.recordings.so_far()] == [None]
        assert len(tasks.diagnostics.process.hung) == 0
        go_on.set()
        tasks.finish()

    assert len(looks) == 1  # The others would only wait, too.
    assert stored(given).artifacts(task_id)["memory_profile"].status == ArtifactStatus.STORED


def test_a_collector_is_back_once_its_step_has_returned(
    bench: Any, settings: Callable[..., Any], stored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = settings(task_diagnostics=["memory"])
    go_on, recordings = threading.Event(), list[Any]()
    record = MemoryCollector.record

    # Given a collector that is not known to be quick, and hangs when its first recording is stopped
    def record_slowly(collector: MemoryCollector, run: RunContext) -> Any:
        recording: Any = record(collector, run)
        recording.runs_inline, recording.step_timeout_s = False, PATIENCE_S
        stop = recording.stop
        if not recordings:
            recording.stop = lambda: go_on.wait(PATIENCE_S) and stop()
        recordings.append(recording)
        return recording

    def work() -> None:
        if len(recordings) == 1:
            recordings[0].step_timeout_s = 0.1

    monkeypatch.setattr(MemoryCollector, "record", record_slowly)
    with bench(given) as tasks:
        ids = [tasks.run(work, actor_name=name) for name in ("hangs", "beside")]
        go_on.set()
        eventually(lambda: not tasks.diagnostics.process.hung, "the step has returned")
        ids.append(tasks.run(work, actor_name="after"))

    artifacts = [stored(given).artifacts(task_id)["memory_profile"] for task_id in ids]
    assert [artifact.status for artifact in artifacts] == [
        ArtifactStatus.FAILED,
        ArtifactStatus.SKIPPED,
        ArtifactStatus.STORED,
    ]
    assert artifacts[1].reason == "It hung in another run of this process."
