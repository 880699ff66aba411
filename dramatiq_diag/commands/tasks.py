"""`tasks`: the recent runs."""

from __future__ import annotations

import click

from ..documents import runs_document
from ..models import RunStatus
from ..printable import printable
from ..records import RunFilter
from ..settings import Settings
from .output import echo_json, echo_table, run_row
from .store import opened_store


@click.command()
@click.option("--actor", "actor_name", help="Only runs of this actor.")
@click.option("--queue", "queue_name", help="Only runs from this queue.")
@click.option("--status", type=click.Choice([*map(str, RunStatus)]), help="Only runs of this status.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many runs at most.")
@click.option("--cursor", help="Where to go on, as the answer before this one said.")
@click.option("--json", "as_json", is_flag=True, help="Print the document that GET /tasks/ answers.")
def tasks(
    *,
    actor_name: str | None,
    queue_name: str | None,
    status: str | None,
    limit: int,
    cursor: str | None,
    as_json: bool,
) -> None:
    """List the runs that something was collected for, newest first.

    \b
    Examples:
      dramatiq-diag tasks --actor resize_image --status failed
      dramatiq-diag tasks --json --limit 200
    """
    wanted = RunFilter(actor_name=actor_name, queue_name=queue_name, status=status)
    with opened_store(Settings()) as store, store.session() as session:
        try:
            document = runs_document(session, wanted, limit, cursor)
        except ValueError as error:
            raise click.BadParameter(f"{error}.", param_hint="--cursor") from error
    if as_json:
        echo_json(document)
        return
    if not document["runs"]:
        click.echo("No runs. A worker collects for the tasks that TASK_DIAGNOSTICS, an actor or a message asks for.")
        return
    rows = [[run["started_at"][:19] + "Z", *run_row(run), run["task_id"]] for run in document["runs"]]
    echo_table(("STARTED", "STATUS", "DURATION", "PEAK RSS", "ACTOR", "ATTEMPT", "TASK ID"), rows)
    if document["next"] is not None:
        click.echo(f"There are more: --cursor {printable(document['next'])}")
