"""Finds the run that a command names by the id of its task or the beginning of that id, and its artifacts."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy.orm import Session

from ..documents.runs import absence
from ..errors import DiagnosticsError
from ..statuses import DOWNLOADABLE_STATUSES
from ..store.attempts import Attempt, find_attempt
from ..store.models import Artifact, TaskRun
from ..store.runs import artifacts_of, task_ids_like
from ..text import printable

#: How many tasks are named when a text is ambiguous.
_NAMED = 5


def chosen_run(session: Session, task_id: str, attempt: int | None) -> Attempt:
    """Finds a run by the id of its task, or by the beginning of an id that no other task shares.

    Raises:
      DiagnosticsError: When there is no such run, or when several tasks match; the message names them.
    """
    if task_id and find_attempt(session, task_id) is None:
        ids = task_ids_like(session, task_id, _NAMED + 1)
        if len(ids) > 1:
            named = ", ".join(map(printable, ids[:_NAMED]))
            more = " and more" if len(ids) > _NAMED else ""
            raise DiagnosticsError(f"Several tasks begin with {printable(task_id)!r}: {named}{more}.")
        task_id = ids[0] if ids else task_id
    return exact_run(session, task_id, attempt)


def run_with_artifacts(session: Session, task_id: str, attempt: int | None) -> tuple[Attempt, dict[str, Artifact]]:
    """Finds a run as `chosen_run` does. Returns: The run, and its artifacts by name."""
    run = chosen_run(session, task_id, attempt)
    return run, {artifact.name: artifact for artifact in artifacts_of(session, [run.run_id])[run.run_id]}


def exact_run(session: Session, task_id: str, attempt: int | None) -> Attempt:
    """Finds a run by the whole id of its task. Raises: DiagnosticsError when there is no such run."""
    found = find_attempt(session, task_id, attempt)
    if found is None:
        which = "" if attempt is None else f"attempt {attempt} of "
        missing = f"Nothing was ever collected for {which}task {printable(task_id)!r}."
        alike = [] if not task_id or attempt is not None else task_ids_like(session, task_id, 1)
        whole = f" Give the whole id: {printable(alike[0])} begins with it." if alike else ""
        raise DiagnosticsError(missing + whole)
    return found


def find_artifact(run: TaskRun, artifacts: Mapping[str, Artifact], name: str) -> Artifact:
    """Finds an artifact that has a file. Raises: DiagnosticsError when there is none; the message says why."""
    artifact = artifacts.get(name)
    if artifact is None:
        raise DiagnosticsError(absence(name, run))
    if artifact.status not in DOWNLOADABLE_STATUSES:
        raise DiagnosticsError(f"{name} is {artifact.status}: {artifact.reason or ''}")
    return artifact
