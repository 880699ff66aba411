"""`attach`: collects more of a task that is running."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

from ..documents.attachments import attachment_document
from ..documents.signing import Signer
from ..policy.options import OptionsError, with_options
from ..settings import Settings
from ..store import attachments
from ..store.attachments import AttachmentRequestError, AttachmentStanding, AttachmentState, find_attachments
from ..store.store import Store
from ..text import printable
from .artifacts import DEFAULT_BASE_URL, echo_attachment
from .download import choose_targets, download, download_option, downloadable
from .output import bar, echo_json, json_option
from .parameters import duration_s
from .store import opened_store, patiently

#: Seconds between looks at how far it is.
_POLL_S = 0.25


@click.command()
@click.argument("task_id", required=False)
@click.option("--actor", "actor_name", help="All running tasks of this actor, at most 50, in place of one task.")
@click.option("--diagnostics", "names", required=True, help="Names of diagnostics, separated by commas.")
@click.option(
    "--option", "options", multiple=True, metavar="NAME.OPTION=VALUE", help="An option of a diagnostic; repeatable."
)
@click.option(
    "--for",
    "for_s",
    type=duration_s,
    default="30s",
    show_default=True,
    help="When it ends, if the task does not end before: 1s to 1d.",
)
@download_option
@json_option("the document of GET /attachments/<id>/")
@click.pass_context
def attach(
    context: click.Context,
    *,
    task_id: str | None,
    actor_name: str | None,
    names: str,
    options: tuple[str, ...],
    for_s: float,
    directory: Path | None,
    as_json: bool,
) -> None:
    """Collect more of a task that is running, and wait for the files. The task is not changed.

    The collectors begin within 3 seconds, in the worker process, and end after the time or with the task; then their
    files can be downloaded, while the task goes on. The names have to be in TASK_DIAGNOSTICS or
    TASK_DIAGNOSTICS_ON_REQUEST, here and in the worker's environment; the task itself need not be diagnosed. Ctrl-C
    ends the waiting alone. Exits 1 if no live process executes the task, or nothing was collected.

    \b
    Examples:
      dramatiq-diag attach 4c1d7ad2-5b0c-4c9c-b7a6-6c3d2f7be2b2 --diagnostics pyinstrument,memray --for 30s
      dramatiq-diag attach --actor resize_image --diagnostics memory --for 1m --download ./now
    """
    if (task_id is None) == (actor_name is None):
        raise click.UsageError("Name a task, or an actor with --actor.")
    settings = Settings()
    try:
        diagnostics = with_options((name.strip() for name in names.split(",") if name.strip()), options)
    except OptionsError as error:
        raise click.UsageError(str(error)) from error
    if directory is not None:  # Not after the time: then it is known too late that it cannot be made.
        choose_targets([], directory)
    with opened_store(settings) as store:
        try:
            if task_id is not None:
                ids = [attachments.attach(store, task_id, diagnostics, for_s)]
            else:
                ids = attachments.attach_to_actor(store, actor_name or "", diagnostics, for_s)
        except AttachmentRequestError as error:
            raise click.UsageError(str(error)) from error
        standings = _wait(store, ids)
        signer, base_url = Signer(settings), settings.public_url or DEFAULT_BASE_URL
        documents = [attachment_document(standing, signer, base_url) for standing in standings]
        if as_json:
            echo_json(documents[0] if task_id is not None else {"attachments": documents})
        else:
            for document in documents:
                click.echo(f"Task {printable(document['task_id'])}")
                echo_attachment(document)
        if directory is not None:
            for standing in standings:
                _download(store, standing, directory if len(ids) == 1 else directory / str(standing.attachment_id))
    context.exit(0 if all(document["urls"] for document in documents) else 1)


def _wait(store: Store, ids: list[uuid.UUID]) -> list[AttachmentStanding]:
    """Waits until all are over, and says on stderr how far they are. Ctrl-C ends it. Returns: What they are then."""
    for attachment_id in ids:
        click.echo(f"Attachment {attachment_id} was asked for.", err=True)
    said = ""
    try:
        while True:
            standings = patiently(lambda: _read(store, ids))
            if (progress := _progress(standings)) != said:
                click.echo(f"Attachments: {progress}", err=True)
                said = progress
            if all(standing.is_over for standing in standings):
                return standings
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        places = ", ".join(f"/attachments/{attachment_id}/" for attachment_id in ids)
        click.echo(f"It goes on. Its files will be on the page of the run, and named by: GET {places}", err=True)
        raise click.exceptions.Exit(1) from None


def _read(store: Store, ids: list[uuid.UUID]) -> list[AttachmentStanding]:
    with store.session() as session:
        return find_attachments(session, ids)


def _progress(standings: Sequence[AttachmentStanding]) -> str:
    counts = Counter(standing.state for standing in standings)
    return ", ".join(f"{counts[state]} {state}" for state in AttachmentState if counts[state])


def _download(store: Store, standing: AttachmentStanding, directory: Path) -> None:
    """Writes the files. Raises: DownloadError, or another error of `download`."""
    found = downloadable(standing.artifacts)
    for artifact, target in zip(found, choose_targets(found, directory), strict=True):
        with bar(artifact.name, artifact.size_bytes or 0) as on_bytes:
            download(store, artifact, target, on_bytes)
        click.echo(f"Wrote {target}", err=True)
