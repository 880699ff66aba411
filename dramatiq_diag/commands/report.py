"""`report`: one report of one run, for a file or a pipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

import click

from ..errors import DiagnosticsError
from ..models import LIVE_STATUSES, Artifact
from ..printable import printable
from ..records import artifacts_of, choose_run, runs_of_task
from ..reports.downloads import form_of, open_download
from ..settings import Settings
from .download import copy, create
from .output import attempt_option, never_collected
from .store import opened_store

#: Kind of report -> the artifact that it is made of, and the form that a terminal can show.
_KINDS = {"time": ("pyinstrument_profile", "text"), "allocations": ("memray_profile", "tree")}


@click.command()
@click.argument("task_id")
@click.argument("kind", type=click.Choice([*_KINDS]), default="time")
@click.option("--format", "format_name", metavar="NAME", help="One of those above; without it a text.")
@attempt_option
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where to write it; no file that is there is overwritten. Without it the report goes to standard output.",
)
def report(task_id: str, kind: str, *, format_name: str | None, attempt: int | None, output: Path | None) -> None:
    """Write a report of one run of a task.

    `time` is the time profile: `text` for the eye, `html` for a browser, `speedscope` for https://www.speedscope.app,
    `session` is what is stored, for pyinstrument's own `Session.from_json`.

    `allocations` is what memray captured: `tree` and `summary` for the eye, `flamegraph` and `table` for a browser.
    They are of what the task's own thread held at the peak of the process; with `-process` behind the name (as in
    `flamegraph-process`) of all threads, with `-leaks` of what was not freed by the end, with `-process-leaks` of
    both. `stats-process` is memray's statistics, `capture` is what is stored.

    \b
    Examples:
      dramatiq-diag report 4c1d7ad2-5b0c-4c9c-b7a6-6c3d2f7be2b2
      dramatiq-diag report 4c1d7ad2-5b0c-4c9c-b7a6-6c3d2f7be2b2 time --format html -o profile.html
      dramatiq-diag report 4c1d7ad2-5b0c-4c9c-b7a6-6c3d2f7be2b2 allocations --format flamegraph -o flamegraph.html
    """
    artifact_name, text_form = _KINDS[kind]
    with opened_store(Settings()) as store:
        with store.session() as session:
            run = choose_run(runs_of_task(session, task_id), attempt)
            if run is None:
                raise never_collected(task_id, attempt)
            artifact = _find(artifacts_of(session, [run.run.run_id])[run.run.run_id], artifact_name)
        with open_download(store.blobs, artifact, form_of(artifact, format_name or text_form)) as source:
            _write(source, output)


def _find(artifacts: list[Artifact], name: str) -> Artifact:
    artifact = next((found for found in artifacts if found.name == name), None)
    if artifact is None:
        raise DiagnosticsError(f"{name} was not collected for this run.")
    if artifact.status not in LIVE_STATUSES:
        raise DiagnosticsError(f"{name} is {artifact.status}: {printable(artifact.reason or '')}")
    return artifact


def _write(source: BinaryIO, output: Path | None) -> None:
    if output is None:
        copy(source, sys.stdout.buffer)
        return
    with create(output) as file:
        copy(source, file)
    click.echo(f"Wrote {output}", err=True)
