"""Captures: asked for, looked at, and filled by the runs of a worker."""

from __future__ import annotations

import uuid

from sqlalchemy import select

from dramatiq_diag.statuses import RunStatus
from dramatiq_diag.store.captures import (
    create,
    find_capture,
)
from dramatiq_diag.store.models import WorkerActor
from dramatiq_diag.store.records import RunRecord
from dramatiq_diag.store.runs import RunFilter, list_runs
from dramatiq_diag.store.worker_actors import note_actors
from support import eventually
from support.records import run_record

HOUR_S = 3600.0


def work() -> None:
    sum(range(1000))


def settings_for_captures(settings, database_url):
    """Returns: Settings of workers that collect nothing by themselves, with their data directory."""
    made = settings(
        database_url=database_url, task_diagnostics=[], task_diagnostics_on_request=["memory", "pyinstrument"]
    )
    made.data_dir.mkdir()
    return made


def ask(store, actor_name="work", *, runs=1, names=("memory",), duration_s=HOUR_S):
    diagnostics = {name: {} for name in names}
    return create(store, actor_name, diagnostics, runs, duration_s, unknown_actor=True).capture.capture_id


def standing(store, capture_id):
    with store.session() as session:
        return find_capture(session, capture_id)


def runs_of(store, capture_id):
    with store.session() as session:
        return [*list_runs(session, RunFilter(capture_id=capture_id), 10_000)[0]]


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


def noted(store):
    """Returns: The actors that workers said to have -> their queues."""
    with store.session() as session:
        return {row.actor_name: row.queue_name for row in session.execute(select(WorkerActor)).scalars()}


# Slots.


def captured(capture_id: uuid.UUID, *without_capture: str, **changes) -> RunRecord:
    """Returns: A run that a capture asked for, with artifacts of these names even if it gets no slot."""
    return run_record(capture_id=capture_id, without_capture=list(without_capture), **changes)


def running(capture_id: uuid.UUID, *without_capture: str) -> RunRecord:
    """Returns: The same while it runs."""
    return captured(capture_id, *without_capture, status=RunStatus.RUNNING, finished_at=None, duration_ms=None)


def knows(tasks, actor_name="work"):
    """Returns: Whether the worker knows of a capture of the actor."""
    return actor_name in tasks.diagnostics.process.captures.actor_names
