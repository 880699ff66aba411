"""Finds the run that a command names, by the id of its task or the beginning of that id."""

from __future__ import annotations

from sqlalchemy.orm import Session

from ..errors import DiagnosticsError
from ..store.attempts import RankedRun, find_attempt
from ..store.runs import task_ids_like
from ..text import printable

#: How many tasks are named when a text is ambiguous.
_NAMED = 5


def chosen_run(session: Session, task_id: str, attempt: int | None) -> RankedRun:
    """Finds a run by the id of its task, or by the beginning of an id that no other task shares.

    Raises:
      DiagnosticsError: When there is no such run, or when several tasks match; the message names them.
    """
    found = find_attempt(session, task_id, attempt)
    return found or exact_run(session, _completed(session, task_id, attempt), attempt)


def exact_run(session: Session, task_id: str, attempt: int | None) -> RankedRun:
    """Finds a run by the whole id of its task. Raises: DiagnosticsError when there is no such run."""
    found = find_attempt(session, task_id, attempt)
    if found is None:
        raise never_collected(task_id, attempt)
    return found


def never_collected(task_id: str, attempt: int | None) -> DiagnosticsError:
    """Returns: The error for a run that does not exist."""
    which = "" if attempt is None else f"attempt {attempt} of "
    return DiagnosticsError(f"Nothing was ever collected for {which}task {printable(task_id)!r}.")


def _completed(session: Session, beginning: str, attempt: int | None) -> str:
    """Returns: The id of the one task that begins with a text; the text itself where a task has exactly that id."""
    if find_attempt(session, beginning) is not None:
        return beginning
    ids = task_ids_like(session, beginning, _NAMED + 1) if beginning else []
    if not ids:
        raise never_collected(beginning, attempt)
    if len(ids) > 1:
        named = ", ".join(printable(task_id) for task_id in ids[:_NAMED])
        more = " and more" if len(ids) > _NAMED else ""
        raise DiagnosticsError(f"Several tasks begin with {printable(beginning)!r}: {named}{more}.")
    return ids[0]
