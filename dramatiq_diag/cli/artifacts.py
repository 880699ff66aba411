"""`artifacts`: lists and downloads the artifacts of one run."""

from __future__ import annotations

import uuid
from pathlib import Path

import click

from ..documents.runs import ArtifactsDocument, artifacts_document
from ..documents.signing import Signer
from ..errors import DiagnosticsError
from ..settings import Settings
from ..store.runs import artifacts_of
from ..store.store import Store
from ..text import format_size, printable
from .choose import chosen_run
from .download import choose_targets, download, downloadable
from .output import RUN_COLUMNS, attempt_option, bar, echo_json, echo_table, json_option
from .store import opened_store

#: The default address of `dramatiq-diag serve`.
_DEFAULT_BASE_URL = "http://127.0.0.1:8321"

_COLUMNS = ("STATUS", "DURATION", "PEAK RSS", "ACTOR", "ATTEMPT")


@click.command()
@click.argument("task_id")
@attempt_option
@click.option(
    "--download",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write the files into this directory, which is made if necessary; no existing file is overwritten.",
)
@json_option("the document of GET .../profile_artifacts/")
@click.pass_context
def artifacts(
    context: click.Context, task_id: str, *, attempt: int | None, directory: Path | None, as_json: bool
) -> None:
    """List the artifacts of one run of a task with their download URLs, or download them.

    URLs begin with DRAMATIQ_DIAG_PUBLIC_URL, or else with the default address of `dramatiq-diag serve`. A task id that
    begins with a dash goes behind `--`. Exits 1 for a task without a stored run.

    \b
    Examples:
      dramatiq-diag artifacts 4c1d7ad2-5b0c-4c9c-b7a6-6c3d2f7be2b2
      dramatiq-diag artifacts 4c1d7ad2-5b0c-4c9c-b7a6-6c3d2f7be2b2 --download ./profiles
    """
    settings = Settings()
    base_url = settings.public_url or _DEFAULT_BASE_URL
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
    run_id = uuid.UUID(document["run"]["run_id"])
    with store.session() as session:
        found = downloadable(artifacts_of(session, [run_id])[run_id])
    written: list[tuple[Path, DiagnosticsError | None]] = []
    for artifact, target in zip(found, choose_targets(found, directory), strict=True):
        try:
            with bar(artifact.name, artifact.size_bytes or 0) as on_bytes:
                download(store, artifact, target, on_bytes)
        except DiagnosticsError as error:
            written.append((target, error))
        else:
            written.append((target, None))
    return written


def _show(document: ArtifactsDocument, settings: Settings) -> None:
    run = document["run"]
    click.echo(f"Task {printable(run['task_id'])}, run {run['run_id']} on {printable(run['hostname'])}")
    echo_table({heading: RUN_COLUMNS[heading] for heading in _COLUMNS}, [run])
    if run["exception"] is not None:
        click.echo(f"Raised {printable(run['exception']['type'])}: {printable(run['exception']['message'])}")
    for artifact in document["artifacts"]:
        click.echo(
            f"\n{artifact['name']}: {artifact['status']}, {artifact['filename']}, {format_size(artifact['size_bytes'])}"
        )
        for line in (artifact["reason"], document["urls"].get(artifact["name"])):
            if line is not None:
                click.echo(f"  {printable(line)}")
    if document["urls"] and settings.public_url is None:
        click.echo("\nThese URLs need a server: dramatiq-diag serve")
