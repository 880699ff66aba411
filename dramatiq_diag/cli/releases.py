"""`releases`: lists the figures of an actor by the release of the application."""

from __future__ import annotations

import click

from ..documents.actors import ReleaseDocument, releases_document
from ..settings import Settings
from ..store.actor_stats import summarize_actor
from ..text import format_duration, format_size, printable
from .output import Columns, echo_json, echo_table, json_option, shown_name, shown_time
from .store import opened_store

_COLUMNS: Columns[ReleaseDocument] = {
    "RELEASE": lambda release: shown_name(release["release"] or "unknown"),
    "RUNS": lambda release: str(release["run_count"]),
    "FAILED": lambda release: str(release["failed_count"]),
    "MEDIAN": lambda release: format_duration(release["median_duration_ms"]),
    "CHANGE": lambda release: _change(release["duration_ratio"]),
    "95 %": lambda release: format_duration(release["p95_duration_ms"]),
    "MEDIAN CPU": lambda release: format_duration(release["median_cpu_ms"]),
    "MOST RSS": lambda release: format_size(release["max_peak_rss_bytes"]),
    "FIRST STARTED": lambda release: shown_time(release["first_started_at"]),
    "TYPICAL TASK": lambda release: shown_name(release["typical_task_id"] or "-"),
}


def _change(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * (ratio - 1):+.0f} %"


@click.command()
@click.argument("actor")
@json_option("the releases, as GET /actors/ACTOR/ has them")
def releases(*, actor: str, as_json: bool) -> None:
    """Find out whether an actor became slower with a release of the application, the newest release first.

    The latest 1,000 runs of the actor that have ended count. MEDIAN, 95 % and MEDIAN CPU are of the successful ones;
    interrupted runs count as failed. CHANGE is that of the median since the release before, where both have 5
    successful runs or more. The run of TYPICAL TASK has a duration near the median: compare the tasks of two releases.

    \b
    Examples:
      dramatiq-diag releases resize_image
      dramatiq-diag releases resize_image --json
    """
    with opened_store(Settings()) as store, store.session() as session:
        document = releases_document(session, actor)
        is_known = bool(document["releases"]) or summarize_actor(session, actor) is not None
    if not is_known:
        raise click.UsageError(f"Nothing was ever collected for an actor named {printable(actor)!r}.")
    if as_json:
        echo_json(document)
    elif document["releases"]:
        echo_table(_COLUMNS, document["releases"])
    else:
        click.echo("No run of this actor names a release; see DRAMATIQ_DIAG_RELEASE.")
