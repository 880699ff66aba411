"""`actors`: how each actor has been doing."""

from __future__ import annotations

from datetime import datetime

import click

from ..documents.actors import ActorDocument, actors_document
from ..settings import Settings
from ..text import format_duration, format_size
from .output import echo_json, echo_table
from .parameters import moment
from .store import opened_store

_HEADINGS = ("ACTOR", "RUNS", "FAILED", "MEDIAN", "95 %", "MOST RSS", "LAST STARTED")


@click.command()
@click.option("--since", type=moment, help="Count only runs that started then or later: a time, or an age such as 24h.")
@click.option("--json", "as_json", is_flag=True, help="Print the document that GET /actors/ answers.")
def actors(*, since: datetime | None, as_json: bool) -> None:
    """List the actors that something was collected for and those that workers have, by name.

    RUNS and FAILED count the stored runs; interrupted runs count as failed. MEDIAN and 95 % are durations of the latest
    100 runs that have ended: half of them took no longer than the median, 95 % no longer than the other.

    \b
    Examples:
      dramatiq-diag actors
      dramatiq-diag actors --since 24h --json
    """
    with opened_store(Settings()) as store, store.session() as session:
        document = actors_document(session, since)
    if as_json:
        echo_json(document)
        return
    if not document["actors"]:
        click.echo("No actors: nothing was collected yet, and no worker with diagnostics has started.")
        return
    echo_table(_HEADINGS, [_row(actor) for actor in document["actors"]])


def _row(actor: ActorDocument) -> list[str]:
    started_at = actor["last_started_at"]
    return [
        actor["actor_name"],
        str(actor["run_count"]),
        str(actor["failed_count"]),
        format_duration(actor["median_duration_ms"]),
        format_duration(actor["p95_duration_ms"]),
        format_size(actor["max_peak_rss_bytes"]),
        "-" if started_at is None else f"{started_at[:19]}Z",
    ]
