"""An interrupt at any instruction of the hooks costs its own run at most."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any
from uuid import UUID

import pytest

from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from support import TESTS

#: Seconds that a script may take; one in which a lock stays held hangs.
_HANGS_AFTER_S = 600


@pytest.mark.parametrize(
    ("count", "values", "attached"),
    [
        (250, {"task_diagnostics": ["memory", "logs", "resources", "pyinstrument", "memray"]}, []),
        # memray and pyinstrument's own profiler exclude each other.
        (
            500,
            {"task_diagnostics": ["memory", "logs", "resources", "pyinstrument"], "pyinstrument_engine": "profiler"},
            [],
        ),
        (
            250,
            {
                "task_diagnostics": ["memory", "debug-logs"],
                "task_diagnostics_on_request": ["pyinstrument"],
                "triggers": "after 1ms: pyinstrument, stacks; rss>1GiB: stacks",
                "sample_rate": 0.999999,
                "keep_if": "peak_rss>1MiB, slower_than>p95",
            },
            [],
        ),
        (
            250,
            {
                "task_diagnostics": ["memory", "resources", "pyinstrument"],
                "task_diagnostics_on_request": ["logs", "memray"],
            },
            ["memory", "pyinstrument", "logs", "memray"],
        ),
    ],
)
def test_an_interrupt_at_any_instruction_of_the_hooks_costs_its_own_run_at_most(
    settings, stored, tmp_path, count, values, attached
):
    directory = tmp_path / "data"

    # When interrupts strike at so many instructions, a message each
    ended = subprocess.run(
        [sys.executable, "-m", "support.strikes", directory, str(count), json.dumps(values), json.dumps(attached)],
        cwd=TESTS,
        stdout=subprocess.PIPE,
        text=True,
        timeout=_HANGS_AFTER_S,
        check=True,
    )
    found: dict[str, Any] = json.loads(ended.stdout)

    # Then they did strike, but for a few where no run came by
    assert found["strikes"] > 0.8 * count
    # Every run that had begun is stored once, and has ended
    assert found["flushed"]
    reader = stored(settings(data_dir=directory))
    runs = reader.all_runs()
    assert sorted(run.task_id for run in runs) == sorted(found["begun"])
    assert {run.status for run in runs} <= {RunStatus.SUCCEEDED, RunStatus.FAILED}
    # The one after all of them is whole: no lock is held, and each thread of ours is at work
    artifacts = reader.artifacts(found["whole"])
    told = {name: (artifact.status, artifact.reason) for name, artifact in artifacts.items()}
    assert set(told.values()) == {(ArtifactStatus.STORED, None)}
    assert len(artifacts) >= max(3, len(values["task_diagnostics"]))
    assert json.loads(reader.data(found["whole"], "pyinstrument_profile"))["sample_count"] > 0
    assert len(reader.data(found["whole"], "memory_profile").splitlines()) >= 4
    # And so is what was attached: each is stored once with all its artifacts, those of the last run whole
    by_attachment = reader.attached()
    assert {str(attachment_id) for attachment_id in by_attachment} == set(found["attached"])
    assert {len(stored_of) for stored_of in by_attachment.values()} <= {len(attached)}
    for attachment_id in found["attached"][-1:]:
        assert {artifact.status for artifact in by_attachment[UUID(attachment_id)]} == {ArtifactStatus.STORED}
    # And nothing is left behind
    assert found["left"] == [0, 0, 0]
    assert (found["entries_open"], found["descriptors"], found["threads"]) == (0, [], [])
    assert (found["switch_interval_s"], found["is_collecting"]) == (0.005, True)
