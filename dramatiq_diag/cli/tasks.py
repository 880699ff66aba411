"""`tasks`: lists the recent runs."""

from __future__ import annotations

import uuid
from datetime import datetime

import click

from ..documents.runs import runs_document
from ..settings import Settings
from ..statuses import RunStatus
from ..store.runs import RunFilter, Sort
from ..text import printable
from .output import RUN_COLUMNS, echo_json, echo_table, json_option
from .parameters import moment, number
from .store import opened_store

_MEBIBYTE = 1024**2


@click.command()
@click.option("--actor", "actor_name", help="Only runs of this actor.")
@click.option("--queue", "queue_name", help="Only runs from this queue.")
@click.option("--status", type=click.Choice([*map(str, RunStatus)]), help="Only runs of this status.")
@click.option("--task-id", help="Only runs of this task, or of tasks whose ids begin with this text.")
@click.option("--since", type=moment, help="Only runs that started then or later: a time, or an age such as 2h.")
@click.option("--until", type=moment, help="Only runs that started before then.")
@click.option("--min-duration-s", type=number, help="Only runs that took so many seconds or more.")
@click.option("--max-duration-s", type=number, help="Only runs that took so many seconds or less.")
@click.option("--min-peak-rss-mib", type=number, help="Only runs whose peak RSS was so many MiB or more.")
@click.option("--capture", "capture_id", type=click.UUID, help="Only runs that this capture asked for.")
@click.option(
    "--sort",
    type=click.Choice([*map(str, Sort)]),
    default=str(Sort.NEWEST),
    show_default=True,
    help="The order; the last two leave out runs without that figure.",
)
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many runs.")
@click.option("--cursor", help="Continue a list, with the cursor that its end printed.")
@json_option("the document of GET /tasks/")
def tasks(
    *,
    min_duration_s: float | None,
    max_duration_s: float | None,
    min_peak_rss_mib: float | None,
    since: datetime | None,
    until: datetime | None,
    capture_id: uuid.UUID | None,
    sort: str,
    limit: int,
    cursor: str | None,
    as_json: bool,
    **equal: str | None,  # The options that `RunFilter` has under the same names.
) -> None:
    """List the stored runs, newest first.

    Times are of ISO 8601, in UTC where they have no zone, or ages: 90s, 15m, 2h, 3d, 1w. A cursor belongs to the order
    of its list.

    \b
    Examples:
      dramatiq-diag tasks --actor resize_image --status failed
      dramatiq-diag tasks --since 2h --sort slowest --limit 10
      dramatiq-diag tasks --min-duration-s 30 --min-peak-rss-mib 500
      dramatiq-diag tasks --json --limit 200
    """
    wanted = RunFilter(
        **equal,
        started_since=since,
        started_before=until,
        min_duration_ms=None if min_duration_s is None else min_duration_s * 1000,
        max_duration_ms=None if max_duration_s is None else max_duration_s * 1000,
        min_peak_rss_bytes=None if min_peak_rss_mib is None else int(min_peak_rss_mib * _MEBIBYTE),
        capture_id=capture_id,
    )
    with opened_store(Settings()) as store, store.session() as session:
        try:
            document = runs_document(session, wanted, limit, cursor, Sort(sort))
        except ValueError as error:
            raise click.BadParameter(f"{error}.", param_hint="--cursor") from error
    if as_json:
        echo_json(document)
    elif document["runs"]:
        echo_table(RUN_COLUMNS, document["runs"])
        if document["next"] is not None:
            click.echo(f"There are more: --cursor {printable(document['next'])}")
    elif wanted != RunFilter():
        click.echo("No runs match.")
    else:
        click.echo("No runs. A worker measures the tasks for which TASK_DIAGNOSTICS, an actor or a message asks.")
