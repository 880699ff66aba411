"""`storage`: shows how much is stored, of what, and what the next cleanup removes."""

from __future__ import annotations

import click

from ..documents.storage import (
    ActorStorageDocument,
    BoundDocument,
    CollectorStorageDocument,
    RemovalDocument,
    StorageDocument,
    storage_document,
)
from ..settings import Settings
from ..text import counted, format_size
from .output import Columns, echo_heading, echo_json, echo_table, json_option, shown_name, shown_time
from .store import opened_store

_ACTORS: Columns[ActorStorageDocument] = {
    "ACTOR": lambda actor: shown_name(actor["actor_name"]),
    "RUNS": lambda actor: str(actor["run_count"]),
    "ARTIFACTS": lambda actor: str(actor["artifact_count"]),
    "SIZE": lambda actor: format_size(actor["size_bytes"]),
}
_COLLECTORS: Columns[CollectorStorageDocument] = {
    "ARTIFACT": lambda collector: collector["artifact_name"],
    "RUNS": lambda collector: str(collector["run_count"]),
    "SIZE": lambda collector: format_size(collector["size_bytes"]),
}
_REMOVALS: Columns[tuple[str, RemovalDocument]] = {
    "REASON": lambda removal: removal[0],
    "RUNS": lambda removal: str(removal[1]["run_count"]),
    "ARTIFACTS": lambda removal: str(removal[1]["artifact_count"]),
    "SIZE": lambda removal: format_size(removal[1]["size_bytes"]),
}


@click.command()
@json_option("the document of GET /storage/")
def storage(*, as_json: bool) -> None:
    """Show how many bytes and runs are stored, by actor and by collector, and what a cleanup would remove now.

    Only runs that have ended count. The sizes are those of the stored files. The bounds are DRAMATIQ_DIAG_MAX_BYTES and
    DRAMATIQ_DIAG_MAX_RUNS; the cleanup keeps them.

    \b
    Example:
      dramatiq-diag storage --json
    """
    settings = Settings()
    with opened_store(settings) as store, store.session() as session:
        document = storage_document(session, settings)
    if as_json:
        echo_json(document)
    else:
        _echo(document)


def _echo(document: StorageDocument) -> None:
    pinned, foretold = document["pinned"], document["next_cleanup"]
    click.echo(f"Artifacts   {document['artifact_count']}, {format_size(document['size_bytes'])}")
    click.echo(f"Runs        {document['run_count']}, the oldest began {shown_time(document['oldest_started_at'])}")
    at_least = "" if pinned["is_complete"] else "at least "
    artifacts = counted(pinned["artifact_count"], "artifact")
    click.echo(f"Pinned      {at_least}{artifacts}, {format_size(pinned['size_bytes'])}")
    click.echo(f"Bounds      {_bound(document['max_bytes'], is_size=True)}; {_bound(document['max_runs'])}")
    echo_heading("A cleanup would remove now:" if foretold["is_complete"] else "A cleanup would remove now, at least:")
    reasons = (
        ("past their time", foretold["by_time"]),
        (f"beyond {document['max_runs']['setting']}", foretold["by_max_runs"]),
        (f"beyond {document['max_bytes']['setting']}", foretold["by_max_bytes"]),
    )
    echo_table(_REMOVALS, reasons)
    if document["actors"]:
        echo_heading("By actor:")
        echo_table(_ACTORS, document["actors"])
    if document["collectors"]:
        echo_heading("By collector:")
        echo_table(_COLLECTORS, document["collectors"])


def _bound(bound: BoundDocument, *, is_size: bool = False) -> str:
    if bound["limit"] is None or bound["used_ratio"] is None:
        return f"{bound['setting']} is empty"
    limit = format_size(bound["limit"]) if is_size else str(bound["limit"])
    return f"{bound['setting']} {limit}, {bound['used_ratio']:.0%} used"
