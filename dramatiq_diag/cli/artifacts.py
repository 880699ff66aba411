"""`artifacts`: lists and downloads the artifacts of one run, also those of its attachments."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path

import click

from ..documents.artifacts import ArtifactDocument
from ..documents.attachments import AttachmentDocument
from ..documents.runs import ArtifactsDocument, RunDocument, artifacts_document
from ..documents.signing import Signer
from ..errors import DiagnosticsError
from ..settings import Settings
from ..store.models import Artifact
from ..store.runs import all_artifacts_of
from ..store.store import Store
from ..text import format_size, printable
from .choose import chosen_run
from .download import choose_targets, download, download_option, downloadable
from .output import Columns, attempt_option, bar, echo_json, echo_table, json_option, run_columns
from .store import opened_store

#: The default address of `dramatiq-diag serve`.
DEFAULT_BASE_URL = "http://127.0.0.1:8321"

#: The columns of the run: those of a list, without what the line above says.
_COLUMNS: Columns[RunDocument] = {
    heading: text for heading, text in run_columns().items() if heading not in ("STARTED", "TASK ID")
}


@click.command()
@click.argument("task_id")
@attempt_option
@download_option
@json_option("the document of GET .../profile_artifacts/")
@click.pass_context
def artifacts(
    context: click.Context, task_id: str, *, attempt: int | None, directory: Path | None, as_json: bool
) -> None:
    """List the artifacts of one run of a task with their download URLs, or download them.

    What was attached to the run while it ran follows; its files go into a directory of their own below DIR, which has
    the id of the attachment as its name.

    URLs begin with DRAMATIQ_DIAG_PUBLIC_URL, or else with the default address of `dramatiq-diag serve`. A task id that
    begins with a dash goes behind `--`. Exits 1 for a task without a stored run.

    \b
    Examples:
      dramatiq-diag artifacts 4c1d7ad2-5b0c-4c9c-b7a6-6c3d2f7be2b2
      dramatiq-diag artifacts 4c1d7ad2-5b0c-4c9c-b7a6-6c3d2f7be2b2 --download ./profiles
    """
    settings = Settings()
    base_url = settings.public_url or DEFAULT_BASE_URL
    with opened_store(settings) as store:
        with store.session() as session:
            run = chosen_run(session, task_id, attempt)
            document = artifacts_document(session, run, Signer(settings), base_url)
        written = [] if directory is None else _download(store, document, directory)
    if as_json:
        echo_json(document)
    else:
        _show(document, settings)
    for path, error in written:
        click.echo(f"Not written: {path}: {error}" if error else f"Wrote {path}", err=bool(error) or as_json)
    context.exit(1 if any(error for _, error in written) else 0)


def _download(store: Store, document: ArtifactsDocument, directory: Path) -> list[tuple[Path, DiagnosticsError | None]]:
    """Writes the files. Returns: The path of each, and the error that prevented it or None."""
    with store.session() as session:
        found = downloadable(all_artifacts_of(session, uuid.UUID(document["run"]["run_id"])))
    found.sort(key=lambda artifact: (artifact.attachment_id is not None, str(artifact.attachment_id)))
    written: list[tuple[Path, DiagnosticsError | None]] = []
    for artifact, target in zip(found, choose_targets(found, directory, _place), strict=True):
        try:
            with bar(artifact.name, artifact.size_bytes or 0) as on_bytes:
                download(store, artifact, target, on_bytes)
        except DiagnosticsError as error:
            written.append((target, error))
        else:
            written.append((target, None))
    return written


def _place(artifact: Artifact) -> str:
    """Returns: The directory of the file of an artifact, below the one that was asked for."""
    return "" if artifact.attachment_id is None else str(artifact.attachment_id)


def _show(document: ArtifactsDocument, settings: Settings) -> None:
    run = document["run"]
    click.echo(f"Task {printable(run['task_id'])}, run {run['run_id']} on {printable(run['hostname'])}")
    echo_table(_COLUMNS, [run])
    if run["exception"] is not None:
        click.echo(f"Raised {printable(run['exception']['type'])}: {printable(run['exception']['message'])}")
    for artifact in document["artifacts"]:
        echo_artifact(artifact, document["urls"])
    for attachment in document["attachments"]:
        click.echo("")
        echo_attachment(attachment)
    if settings.public_url is None and any(part["urls"] for part in (document, *document["attachments"])):
        click.echo("\nThese URLs need a server: dramatiq-diag serve")


def echo_attachment(document: AttachmentDocument) -> None:
    """Prints an attachment, its state and its artifacts."""
    names = ", ".join(document["diagnostics"])
    click.echo(f"Attachment {document['attachment_id']}: {printable(names)}, {document['state']}")
    if document["reason"] is not None:
        click.echo(f"  {printable(document['reason'])}")
    for artifact in document["artifacts"]:
        echo_artifact(artifact, document["urls"])


def echo_artifact(artifact: ArtifactDocument, urls: Mapping[str, str]) -> None:
    """Prints an artifact, why there is none, and its URL."""
    size = format_size(artifact["size_bytes"])
    click.echo(f"\n{artifact['name']}: {artifact['status']}, {artifact['filename']}, {size}")
    for line in (artifact["reason"], urls.get(artifact["name"])):
        if line is not None:
            click.echo(f"  {printable(line)}")
