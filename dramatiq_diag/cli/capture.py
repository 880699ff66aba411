"""`capture` and `captures`: ask for diagnostics of the next runs of an actor, list these requests, end one."""

from __future__ import annotations

import uuid

import click

from ..documents.captures import (
    CaptureDocument,
    capture_document,
    captures_document,
    described_diagnostics,
    new_capture_document,
)
from ..policy.options import OptionsError, with_options
from ..settings import Settings
from ..store import captures
from ..text import printable
from .output import Columns, echo_json, echo_table, json_option, shown_name, shown_time
from .parameters import duration_s
from .store import opened_store

_COLUMNS: Columns[CaptureDocument] = {
    "STATE": lambda document: document["state"],
    "RUNS": lambda document: f"{document['captured_runs']} of {document['run_limit']}",
    "ACTOR": lambda document: shown_name(document["actor_name"]),
    "DIAGNOSTICS": lambda document: ",".join(described_diagnostics(document)),
    "UNTIL": lambda document: _until(document),
    "CAPTURE ID": lambda document: document["capture_id"],
}


@click.command()
@click.argument("actor_name", metavar="ACTOR")
@click.option("--diagnostics", "names", required=True, help="Names of diagnostics, separated by commas.")
@click.option(
    "--option", "options", multiple=True, metavar="NAME.OPTION=VALUE", help="An option of a diagnostic; repeatable."
)
@click.option("--runs", "run_limit", type=int, default=1, show_default=True, help="How many runs, up to 1000.")
@click.option(
    "--for",
    "duration_s",
    type=duration_s,
    default="1h",
    show_default=True,
    help="When it ends at the latest: 90s, 15m, 2h, 3d, 1w, up to 30d.",
)
@click.option(
    "--unknown-actor", is_flag=True, help="Accept an actor that no worker has reported and that has no stored run."
)
@json_option("the document of POST /captures/")
def capture(
    *,
    actor_name: str,
    names: str,
    options: tuple[str, ...],
    run_limit: int,
    duration_s: float,
    unknown_actor: bool,
    as_json: bool,
) -> None:
    """Collect diagnostics of the next runs of an actor, on any worker.

    Workers learn of it within 5 seconds, without a restart. Other diagnostics go on; a message with its own list of
    diagnostics is not counted. The names have to be in TASK_DIAGNOSTICS or TASK_DIAGNOSTICS_ON_REQUEST, here and in the
    workers' environment. A worker has to have reported the actor, or a run of it has to be stored; with --unknown-actor
    it may be one whose workers have not started yet.

    \b
    Examples:
      dramatiq-diag capture resize_image --diagnostics memray --runs 5 --for 1h
      dramatiq-diag capture resize_image --diagnostics memray --option memray.native_traces=true
      dramatiq-diag captures
      dramatiq-diag tasks --capture CAPTURE_ID
    """
    try:
        diagnostics = with_options((name.strip() for name in names.split(",") if name.strip()), options)
    except OptionsError as error:
        raise click.UsageError(str(error)) from error
    with opened_store(Settings()) as store:
        try:
            made = captures.create(store, actor_name, diagnostics, run_limit, duration_s, unknown_actor=unknown_actor)
        except captures.CaptureRequestError as error:
            raise click.UsageError(str(error)) from error
        with store.session() as session:
            document = new_capture_document(session, made)
    if as_json:
        echo_json(document)
        return
    runs = "run" if run_limit == 1 else f"{run_limit} runs"
    click.echo(
        f"Capture {document['capture_id']}: the next {runs} of {printable(actor_name)}, until {_until(document)}."
    )
    if document["note"] is not None:
        click.echo(document["note"], err=True)


@click.command("captures")
@click.option("--actor", "actor_name", help="Only captures of this actor.")
@click.option("--open", "only_open", is_flag=True, help="Only captures that wait for runs.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many captures.")
@click.option("--end", "ended", type=click.UUID, metavar="CAPTURE_ID", help="End this capture now, and show it.")
@json_option("the document of GET /captures/")
def show_captures(
    *, actor_name: str | None, only_open: bool, limit: int, ended: uuid.UUID | None, as_json: bool
) -> None:
    """List the captures, newest first, with the number of their runs; or end one early.

    \b
    Examples:
      dramatiq-diag captures --open
      dramatiq-diag captures --end 6f1c9f0e-9b1a-4f57-8c55-0d8f6a2f7c11
    """
    with opened_store(Settings()) as store:
        if ended is not None:
            found = [capture_document(captures.end(store, ended))]
        else:
            with store.session() as session:
                found = captures_document(session, actor_name=actor_name, only_open=only_open, limit=limit)["captures"]
    if as_json:
        echo_json(found[0] if ended is not None else {"captures": found})
    elif found:
        echo_table(_COLUMNS, found)
    else:
        click.echo("No captures. Ask for one with: dramatiq-diag capture ACTOR --diagnostics NAMES")


def _until(document: CaptureDocument) -> str:
    return shown_time(document["ended_at"] or document["expires_at"])
