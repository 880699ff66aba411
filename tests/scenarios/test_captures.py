"""A capture over several worker processes has as many runs as were asked for."""

from __future__ import annotations

import pytest

from dramatiq_diag.store.captures import (
    CaptureState,
)
from support import eventually
from support.captures import ask, settings_for_captures, standing


@pytest.fixture
def given(settings, database_url):
    return settings_for_captures(settings, database_url)


def test_five_runs_over_three_processes_under_load_are_five_runs(
    given,
    store,
    redis_url,
    stored,
    command_line,
):
    # Given three worker processes, a capture of five runs, and tasks without end
    capture_id = ask(store, "parse", runs=5)
    command = command_line(redis_url, given, TASK_DIAGNOSTICS_ON_REQUEST="memory")
    command.start("--processes", "3", "--threads", "2")

    def complete():
        assert command.process.poll() is None, command.log.read_text()
        command.send(100)
        return standing(store, capture_id).state == CaptureState.COMPLETE

    eventually(complete, "the capture is complete")

    # When as many tasks again are done
    (last := given.data_dir / "retried-199").unlink(missing_ok=True)
    command.send(200)
    eventually(last.exists, "the last tasks are done")
    eventually(lambda: len(stored(given).all_runs()) >= 5, "all is published")
    assert command.stop() == 0

    # Then five runs were diagnosed, each with its artifact, and no other
    runs = stored(given).all_runs()
    assert len(runs) == 5
    assert {run.capture_id for run in runs} == {capture_id}
    for run in runs:
        (artifact,) = stored(given).artifacts(run.task_id).values()
        assert (artifact.name, artifact.status) == ("memory_profile", "stored")
    assert standing(store, capture_id).captured_runs == 5
