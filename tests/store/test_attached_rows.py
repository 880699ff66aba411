"""What is attached to a run is counted once, in whatever order both are published, and however often."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import permutations

import pytest
from sqlalchemy import select

from dramatiq_diag.maintenance.cleanup import Cleanup
from dramatiq_diag.statuses import RunStatus
from dramatiq_diag.store import store as store_module
from dramatiq_diag.store.attempts import find_attempt
from dramatiq_diag.store.counters import Series
from dramatiq_diag.store.models import Counter
from dramatiq_diag.store.pins import pin
from dramatiq_diag.store.records import FinishedRun, RunRecord
from dramatiq_diag.store.runs import all_artifacts_of, artifacts_of
from dramatiq_diag.store.store import Store
from support import PATIENCE_S
from support.records import NOW, artifact_record, bundle, run_record

#: For how long a transaction has the chance to go by what it should wait for, in seconds.
CHANCE_S = 0.5


def attachment_to(run: RunRecord) -> FinishedRun:
    return FinishedRun(run=run.as_running(), artifacts=[artifact_record()], attachment_id=uuid.uuid4())


@contextmanager
def published_meanwhile(patch: pytest.MonkeyPatch, store: Store, attached: FinishedRun) -> Iterator[Callable[[], None]]:
    """Publishes on another thread, up to where the rows are written and not committed yet.

    Yields:
      Lets it go on, after something that is to wait for it had its chance.
    """
    protect, written, go_on = store_module.protect_attached, threading.Event(), threading.Event()

    def stop(*arguments):
        protect(*arguments)
        if threading.current_thread() is thread:
            written.set()
            assert go_on.wait(PATIENCE_S)

    patch.setattr(store_module, "protect_attached", stop)
    thread = threading.Thread(target=store.publish, args=([attached],))
    thread.start()
    try:
        assert written.wait(PATIENCE_S)
        yield lambda: threading.Timer(CHANCE_S, go_on.set).start()
    finally:
        go_on.set()
        thread.join()


def test_what_is_attached_to_a_run_that_a_cleanup_removes_meanwhile_keeps_it(
    settings, stored, database_url, monkeypatch
):
    store = stored(settings(database_url=database_url, max_runs=1)).store
    old, young = run_record(), run_record(started_at=NOW + timedelta(minutes=1))
    store.publish([bundle(old, artifact_record(None)), bundle(young)])
    attached = attachment_to(old)

    with published_meanwhile(monkeypatch, store, attached) as go_on:
        go_on()
        Cleanup(store).run()

    reader = stored(store.settings)
    assert not reader.check()
    # Either the cleanup saw the artifact, and it went with its run, or the next oldest run went in place of this one.
    (left,) = reader.all_runs()
    assert len(reader.attached()) == (left.run_id == old.run_id)


def test_an_attachment_that_is_published_twice_at_once_counts_once(settings, stored, database_url, monkeypatch):
    store = stored(settings(database_url=database_url)).store
    run = run_record()
    store.publish([bundle(run)])
    attached = attachment_to(run)

    with published_meanwhile(monkeypatch, store, attached) as go_on:
        go_on()
        store.publish([attached])

    with store.session() as session:
        query = select(Counter.value).where(Counter.series == Series.ARTIFACTS)
        assert session.execute(query).scalars().all() == [2]
    assert not stored(store.settings).check()


def test_a_pin_waits_for_what_is_just_attached(settings, stored, database_url, monkeypatch):
    store = stored(settings(database_url=database_url)).store
    run = run_record()
    store.publish([bundle(run)])

    with published_meanwhile(monkeypatch, store, attachment_to(run)) as go_on:
        go_on()
        assert pin(store, run.run_id).artifact_count == 2

    assert {each.expires_at for (each,) in stored(store.settings).attached().values()} == {None}


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
