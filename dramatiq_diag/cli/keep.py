"""`pin`, `unpin` and `delete`: keep or delete the artifacts of one run."""

from __future__ import annotations

import click

from ..settings import Settings
from ..statuses import DOWNLOADABLE_STATUSES
from ..store import pins
from ..store.attempts import Attempt
from ..store.runs import all_artifacts_of
from ..store.store import Store
from ..text import format_size, printable
from .choose import exact_run
from .output import attempt_option, confirm, yes_option
from .store import opened_store


@click.command()
@click.argument("task_id")
@attempt_option
def pin(task_id: str, *, attempt: int | None) -> None:
    """Keep one run of a task: the cleanup leaves it and its artifacts alone until it is unpinned.

    Exits 1 for a run that has not ended, and for a task without a stored run.

    \b
    Example:
      dramatiq-diag pin 4c1d7ad2-5b0c-4c9c-b7a6-6c3d2f7be2b2 --attempt 2
    """
    with opened_store(Settings()) as store:
        run = _chosen(store, task_id, attempt)
        pinned = pins.pin(store, run.run_id)
    click.echo(f"Pinned {_name(run)} with {_count(pinned.artifact_count)}: the cleanup leaves it alone.")
    if pinned.artifact_count == 0:
        click.echo("None of its artifacts can be downloaded any more; its row is kept.")


@click.command()
@click.argument("task_id")
@attempt_option
def unpin(task_id: str, *, attempt: int | None) -> None:
    """Unpin one run of a task: its artifacts are kept for another DRAMATIQ_DIAG_ORPHAN_PROTECTION_TIME, from now.

    A run that is not pinned stays as it is. Exits 1 for a run that has not ended, and for a task without a stored run.

    \b
    Example:
      dramatiq-diag unpin 4c1d7ad2-5b0c-4c9c-b7a6-6c3d2f7be2b2
    """
    with opened_store(Settings()) as store:
        run = _chosen(store, task_id, attempt)
        unpinned = pins.unpin(store, run.run_id)
    until = "" if unpinned.expires_at is None else f", kept until {unpinned.expires_at:%Y-%m-%d %H:%M:%S} UTC"
    click.echo(f"A{_name(run)[1:]} is not pinned; it has {_count(unpinned.artifact_count)}{until}.")


@click.command()
@click.argument("task_id")
@attempt_option
@yes_option
def delete(task_id: str, *, attempt: int | None, yes: bool) -> None:
    """Delete the artifacts of one run of a task for good. The run itself is listed until its retention ends.

    Exits 1 for a pinned run, for one that has not ended, and for a task without a stored run.

    \b
    Example:
      dramatiq-diag delete 4c1d7ad2-5b0c-4c9c-b7a6-6c3d2f7be2b2 --yes
    """
    with opened_store(Settings()) as store:
        run = _chosen(store, task_id, attempt)
        if run.pinned_at is not None:
            raise pins.RunIsPinnedError
        confirm(f"Delete {_live_artifacts(store, run)} of {_name(run)} for good?", yes=yes)
        deletion = pins.delete(store, run.run_id)
    click.echo(f"Deleted {_count(deletion.artifact_count)} of {_name(run)}; {format_size(deletion.freed_bytes)} freed.")


def _live_artifacts(store: Store, run: Attempt) -> str:
    with store.session() as session:
        artifacts = all_artifacts_of(session, run.run_id)
    sizes = [artifact.size_bytes or 0 for artifact in artifacts if artifact.status in DOWNLOADABLE_STATUSES]
    return f"{_count(len(sizes))} ({format_size(sum(sizes))})"


def _chosen(store: Store, task_id: str, attempt: int | None) -> Attempt:
    with store.session() as session:
        return exact_run(session, task_id, attempt)


def _name(run: Attempt) -> str:
    return f"attempt {run.attempt} of task {printable(run.task_id)}"


def _count(artifacts: int) -> str:
    return f"{artifacts} artifact{'' if artifacts == 1 else 's'}"
