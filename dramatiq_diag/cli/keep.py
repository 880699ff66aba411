"""`pin`, `unpin` and `delete`: what a person decides about one run of a task."""

from __future__ import annotations

import sys

import click

from ..settings import Settings
from ..statuses import DOWNLOADABLE_STATUSES
from ..store import pins as keeping
from ..store.attempts import Attempt
from ..store.runs import artifacts_of
from ..store.store import Store
from ..text import format_size, printable
from .choose import exact_run
from .output import attempt_option
from .store import opened_store


@click.command()
@click.argument("task_id")
@attempt_option
def pin(task_id: str, *, attempt: int | None) -> None:
    """Keep one run of a task: the cleanup leaves it and its artifacts alone until it is unpinned.

    Exits 1 for a run that has not ended, and for a task that nothing was collected for.

    \b
    Example:
      dramatiq-diag pin 4c1d7ad2-5b0c-4c9c-b7a6-6c3d2f7be2b2 --attempt 2
    """
    with opened_store(Settings()) as store:
        run = _chosen(store, task_id, attempt)
        pinned = keeping.pin(store, run.run_id)
    click.echo(f"Pinned {_name(run)} with {_count(pinned.artifact_count)}: the cleanup leaves it alone.")
    if pinned.artifact_count == 0:
        click.echo("Nothing of it can be downloaded any more; its row is kept.")


@click.command()
@click.argument("task_id")
@attempt_option
def unpin(task_id: str, *, attempt: int | None) -> None:
    """Let one run of a task go: its artifacts are kept for another DRAMATIQ_DIAG_ORPHAN_PROTECTION_TIME, from now.

    A run that is not pinned stays as it is. Exits 1 for a run that has not ended, and for a task that nothing was
    collected for.

    \b
    Example:
      dramatiq-diag unpin 4c1d7ad2-5b0c-4c9c-b7a6-6c3d2f7be2b2
    """
    with opened_store(Settings()) as store:
        run = _chosen(store, task_id, attempt)
        unpinned = keeping.unpin(store, run.run_id)
    until = "" if unpinned.expires_at is None else f", kept until {unpinned.expires_at:%Y-%m-%d %H:%M:%S} UTC"
    click.echo(f"{_name(run, capital=True)} is not pinned; it has {_count(unpinned.artifact_count)}{until}.")


@click.command()
@click.argument("task_id")
@attempt_option
@click.option("--yes", is_flag=True, help="Do not ask; needed where there is no terminal to ask at.")
def delete(task_id: str, *, attempt: int | None, yes: bool) -> None:
    """Delete what was collected of one run of a task, for good. That it ran is still listed until the retention.

    Exits 1 for a pinned run, for one that has not ended, and for a task that nothing was collected for.

    \b
    Example:
      dramatiq-diag delete 4c1d7ad2-5b0c-4c9c-b7a6-6c3d2f7be2b2 --yes
    """
    with opened_store(Settings()) as store:
        run = _chosen(store, task_id, attempt)
        if run.pinned_at is not None:
            raise keeping.RunIsPinnedError
        if not yes:
            _ask(store, run)
        deletion = keeping.delete(store, run.run_id)
    click.echo(f"Deleted {_count(deletion.artifact_count)} of {_name(run)}; {format_size(deletion.freed_bytes)} freed.")


def _ask(store: Store, run: Attempt) -> None:
    """Raises: click.Abort for a no, click.UsageError where nobody can be asked."""
    if not _at_terminal():
        raise click.UsageError("There is no terminal to ask at; say --yes to delete.")
    with store.session() as session:
        artifacts = artifacts_of(session, [run.run_id])[run.run_id]
    live = [artifact for artifact in artifacts if artifact.status in DOWNLOADABLE_STATUSES]
    what = f"{_count(len(live))} ({format_size(sum(artifact.size_bytes or 0 for artifact in live))})"
    click.confirm(f"Delete {what} of {_name(run)} for good?", abort=True)


def _at_terminal() -> bool:
    return sys.stdin.isatty()


def _chosen(store: Store, task_id: str, attempt: int | None) -> Attempt:
    """Returns: The run that is meant. Raises: DiagnosticsError where there is none."""
    with store.session() as session:
        return exact_run(session, task_id, attempt)


def _name(run: Attempt, *, capital: bool = False) -> str:
    return f"{'A' if capital else 'a'}ttempt {run.attempt} of task {printable(run.task_id)}"


def _count(artifacts: int) -> str:
    return f"{artifacts} artifact{'' if artifacts == 1 else 's'}"
