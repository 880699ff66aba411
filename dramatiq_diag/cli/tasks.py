"""`tasks`: lists the recent runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ..documents.runs import runs_document
from ..settings import Settings
from ..statuses import RunStatus
from ..store.runs import RunFilter, Sort
from ..text import printable
from .output import Command, echo_json, echo_table, json_option, run_columns
from .parameters import mebibytes, milliseconds, moment, trace_id
from .store import opened_store


def _number(option: str, field: str, read: Callable[[str], float], meaning: str) -> Callable[[Command], Command]:
    return click.option(option, field, type=read, metavar="NUMBER", help=meaning)


@click.command()
@click.option("--actor", "actor_name", help="Only runs of this actor.")
@click.option("--queue", "queue_name", help="Only runs from this queue.")
@click.option("--status", type=click.Choice([*map(str, RunStatus)]), help="Only runs of this status.")
@click.option("--task-id", help="Only runs of this task, or of tasks whose ids begin with this text.")
@click.option(
    "--since", "started_since", type=moment, help="Only runs that started then or later: a time, or an age such as 2h."
)
@click.option("--until", "started_before", type=moment, help="Only runs that started before then.")
@_number("--min-duration-s", "min_duration_ms", milliseconds, "Only runs that took so many seconds or more.")
@_number("--max-duration-s", "max_duration_ms", milliseconds, "Only runs that took so many seconds or less.")
@_number("--min-peak-rss-mib", "min_peak_rss_bytes", mebibytes, "Only runs whose peak RSS was so many MiB or more.")
@click.option("--capture", "capture_id", type=click.UUID, help="Only runs that this capture asked for.")
@click.option("--trace-id", type=trace_id, help="Only runs of this trace, by its 32 hexadecimal digits.")
@click.option("--stuck", "is_stuck", is_flag=True, default=None, help="Only runs that are stuck.")
@click.option(
    "--sort",
    type=click.Choice([*map(str, Sort)]),
    default=str(Sort.NEWEST),
    show_default=True,
    help="The order; all but the first leave out runs without their figure.",
)
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many runs.")
@click.option("--cursor", help="Continue a list, with the cursor that its end printed.")
@json_option("the document of GET /tasks/")
def tasks(*, sort: str, limit: int, cursor: str | None, as_json: bool, **fields: Any) -> None:
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
    wanted = RunFilter(**fields)
    with opened_store(Settings()) as store, store.session() as session:
        try:
            document = runs_document(session, wanted, limit, cursor, Sort(sort))
        except ValueError as error:
            raise click.BadParameter(f"{error}.", param_hint="--cursor") from error
    if as_json:
        echo_json(document)
    elif document["runs"]:
        echo_table(run_columns(Sort(sort)), document["runs"])
        if document["next"] is not None:
            click.echo(f"There are more: --cursor {printable(document['next'])}")
    elif wanted != RunFilter():
        click.echo("No runs match.")
    else:
        click.echo("No runs. A worker measures the tasks for which TASK_DIAGNOSTICS, an actor or a message asks.")
