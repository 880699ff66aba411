"""`actors`: lists the actors with their runs, failures, durations and memory."""

from __future__ import annotations

from datetime import datetime

import click

from ..documents.actors import ActorDocument, actors_document
from ..settings import Settings
from ..text import format_duration, format_size
from .output import Columns, echo_json, echo_table, json_option, shown_name, shown_time
from .parameters import moment
from .store import opened_store

_COLUMNS: Columns[ActorDocument] = {
    "ACTOR": lambda actor: shown_name(actor["actor_name"]),
    "RUNS": lambda actor: str(actor["run_count"]),
    "FAILED": lambda actor: str(actor["failed_count"]),
    "MEDIAN": lambda actor: format_duration(actor["median_duration_ms"]),
    "95 %": lambda actor: format_duration(actor["p95_duration_ms"]),
    "QUEUE WAIT": lambda actor: format_duration(actor["queue_wait_ms"]),
    "MOST RSS": lambda actor: format_size(actor["max_peak_rss_bytes"]),
    "LAST STARTED": lambda actor: shown_time(actor["last_started_at"]),
}

#: Sums over a time range.
_SUMS: Columns[ActorDocument] = {
    "RUN TIME": lambda actor: _shown_seconds(actor["run_s"]),
    "CPU": lambda actor: _shown_seconds(actor["cpu_s"]),
    "TOUCHED": lambda actor: format_size(actor["touched_bytes"]),
}


def _shown_seconds(spent_s: float | None) -> str:
    return format_duration(None if spent_s is None else spent_s * 1000)


@click.command()
@click.option("--since", type=moment, help="Count only runs that started then or later: a time, or an age such as 24h.")
@json_option("the document of GET /actors/")
def actors(*, since: datetime | None, as_json: bool) -> None:
    """List the actors that have stored runs or belong to a worker, by name.

    RUNS and FAILED count the stored runs; interrupted runs count as failed. MEDIAN and 95 % are durations of the latest
    100 runs that have ended: half of them took no longer than the median, 95 % no longer than the other. QUEUE WAIT is
    the median of the same runs. With --since there are also sums over all runs that count: their durations, their CPU
    time, and the memory that they were the first to touch.

    \b
    Examples:
      dramatiq-diag actors
      dramatiq-diag actors --since 24h --json
    """
    with opened_store(Settings()) as store, store.session() as session:
        document = actors_document(session, since)
    if as_json:
        echo_json(document)
    elif document["actors"]:
        echo_table(_COLUMNS if since is None else {**_COLUMNS, **_SUMS}, document["actors"])
    else:
        click.echo("No actors: there is no stored run, and no worker with diagnostics has started.")
