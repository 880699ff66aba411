"""Captures: asked for, looked at, and filled by the runs of a worker."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

from sqlalchemy import select, update

from dramatiq_diag.store import permits
from dramatiq_diag.store.captures import (
    create,
    find_capture,
)
from dramatiq_diag.store.models import CapturePermit, WorkerActor
from dramatiq_diag.store.runs import RunFilter, list_runs
from dramatiq_diag.store.worker_actors import note_actors
from support import eventually

HOUR_S = 3600.0


def work() -> None:
    sum(range(1000))


def ask(store, actor_name="work", *, runs=1, names=("memory",), duration_s=HOUR_S):
    diagnostics = {name: {} for name in names}
    return create(store, actor_name, diagnostics, runs, duration_s, unknown_actor=True).capture.capture_id


def standing(store, capture_id):
    with store.session() as session:
        return find_capture(session, capture_id)


def runs_of(store, capture_id):
    with store.session() as session:
        return [*list_runs(session, RunFilter(capture_id=capture_id), 10_000)[0]]


def held(store, capture_id):
    with store.session() as session:
        query = select(CapturePermit).where(CapturePermit.capture_id == capture_id, CapturePermit.holder.is_not(None))
        return list(session.execute(query).scalars())


def look(tasks):
    """Lets a worker look at the captures once more."""
    process = tasks.diagnostics.process.captures
    process._due = 0.0
    process.held.news.put(None)


def run_until(tasks, actor, condition, what):
    """Runs an actor again and again until something holds."""

    def once():
        actor.send()
        tasks.finish()
        return condition()

    eventually(once, what)


def note(store, *names):
    """Does what a worker does that has these actors."""
    with store.session() as session:
        note_actors(session, dict.fromkeys(names, "default"))


# Permits.


def claimed(store, capture_id, holder):
    with store.session() as session:
        return permits.claim(session, capture_id, holder)


def use(store, capture_id, number, holder):
    with store.session() as session:
        return permits.use(session, capture_id, number, holder, uuid.uuid4())


def lapse(store, capture_id):
    """Lets the time of all leases pass."""
    with store.session() as session:
        past = datetime.now(UTC) - timedelta(seconds=1)
        session.execute(update(CapturePermit).where(CapturePermit.capture_id == capture_id).values(held_until=past))


def has_a_permit(tasks):
    """Returns: Whether a worker has permits at hand, of whatever capture."""
    return bool(tasks.diagnostics.process.captures._mine)


def noted(store):
    """Returns: The actors that workers said to have -> their queues."""
    with store.session() as session:
        return {row.actor_name: row.queue_name for row in session.execute(select(WorkerActor)).scalars()}
