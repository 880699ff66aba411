"""`capture` and `captures`: the next runs of an actor."""

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
from .output import echo_json, echo_table
from .parameters import length_s
from .store import opened_store


@click.command()
@click.argument("actor_name", metavar="ACTOR")
@click.option("--diagnostics", "names", required=True, help="What is collected: names, separated by commas.")
@click.option(
    "--option", "options", multiple=True, metavar="NAME.OPTION=VALUE", help="How a diagnostic works; may be repeated."
)
@click.option("--runs", "run_limit", type=int, default=1, show_default=True, help="How many runs, up to 1000.")
@click.option(
    "--for",
    "duration_s",
    type=length_s,
    default="1h",
    show_default=True,
    help="When it ends at the latest: 90s, 15m, 2h, 3d, 1w, up to 30d.",
)
@click.option(
    "--unknown-actor", is_flag=True, help="Also an actor that no worker has named and that has no stored run."
)
@click.option("--json", "as_json", is_flag=True, help="Print the document that POST /captures/ answers.")
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
    """Collect diagnostics of the next runs of an actor, on whichever workers they are.

    Workers learn of it within 5 seconds, without a restart. What is collected otherwise goes on; a message with its
    own list of diagnostics is not counted. The names are of TASK_DIAGNOSTICS or TASK_DIAGNOSTICS_ON_REQUEST, here and
    in the workers' environment. The actor is one that a worker has said to have, or of which a run is stored; with
    --unknown-actor it may be one whose workers have not started yet.

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
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many at most.")
@click.option("--end", "ended", type=click.UUID, metavar="CAPTURE_ID", help="End this one now, and show it.")
@click.option("--json", "as_json", is_flag=True, help="Print the document that GET /captures/ answers.")
def show_captures(
    *, actor_name: str | None, only_open: bool, limit: int, ended: uuid.UUID | None, as_json: bool
) -> None:
    """List the captures, newest first, with how many runs each has; or end one early.

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
    elif not found:
        click.echo("No captures. Ask for one with: dramatiq-diag capture ACTOR --diagnostics NAMES")
    else:
        echo_table(("STATE", "RUNS", "ACTOR", "DIAGNOSTICS", "UNTIL", "CAPTURE ID"), [_row(each) for each in found])


def _row(document: CaptureDocument) -> list[str]:
    return [
        document["state"],
        f"{document['captured_runs']} of {document['run_limit']}",
        document["actor_name"],
        ",".join(described_diagnostics(document)),
        _until(document),
        document["capture_id"],
    ]


def _until(document: CaptureDocument) -> str:
    return f"{(document['ended_at'] or document['expires_at'])[:19]}Z"
