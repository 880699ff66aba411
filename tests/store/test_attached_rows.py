"""What is attached to a run is counted once, in whatever order both are published, and however often."""

from __future__ import annotations

import uuid
from dataclasses import replace
from itertools import permutations

import pytest

from dramatiq_diag.statuses import RunStatus
from dramatiq_diag.store.attempts import find_attempt
from dramatiq_diag.store.records import FinishedRun
from dramatiq_diag.store.runs import all_artifacts_of, artifacts_of
from support.records import artifact_record, bundle, run_record


@pytest.mark.parametrize("order", [*permutations(("run", "attached", "both")), ("both",), ("attached", "run")])
def test_the_order_of_publishing_does_not_matter(settings, stored, database_url, order):
    given = settings(database_url=database_url)
    store = stored(given).store
    run = run_record(is_attached=True)
    attached = FinishedRun(
        run=replace(run.as_running(), is_attached=False), artifacts=[artifact_record()], attachment_id=uuid.uuid4()
    )
    batches = {"run": [bundle(run)], "attached": [attached], "both": [attached, bundle(run)]}

    for name in order:
        store.publish(batches[name])

    with store.session() as session:
        assert find_attempt(session, run.task_id, None).status == RunStatus.SUCCEEDED
        (own,) = artifacts_of(session, [run.run_id])[run.run_id]
        found = all_artifacts_of(session, run.run_id)
    assert own.attachment_id is None
    assert {artifact.attachment_id for artifact in found} == {None, attached.attachment_id}
    assert len(found) == 2
    assert not stored(given).check()
