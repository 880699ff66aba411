"""`report`: writes one report of one run, for a file, a pipe or a browser."""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

import click

from ..errors import DiagnosticsError
from ..reports.cache import format_of, open_download
from ..reports.formats import Format
from ..settings import Settings
from ..text import printable
from .choose import find_artifact, run_with_artifacts
from .download import copy, create
from .output import attempt_option
from .store import opened_store

#: Kind of report -> its artifact, the format for a terminal, and the format for a browser; None means the stored file.
_KINDS: dict[str, tuple[str, str | None, str | None]] = {
    "time": ("pyinstrument_profile", "text", "html"),
    "allocations": ("memray_profile", "tree", "flamegraph"),
    "memory": ("memory_profile", "csv", "html"),
    "logs": ("task_logs", None, None),
    "resources": ("resources_profile", None, None),
    "accounting": ("time_accounting", None, None),
}

_NO_TEXT = ("image/png", "application/octet-stream")


@click.command()
@click.argument("task_id")
@click.argument("kind", type=click.Choice([*_KINDS]), default="time")
@click.option("--format", "format_name", metavar="NAME", help="One of the formats above; by default a text.")
@attempt_option
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write it into this new file, not to standard output; no existing file is overwritten.",
)
@click.option("--open", "in_browser", is_flag=True, help="Write it into a temporary file, and open that in a browser.")
def report(
    task_id: str, kind: str, *, format_name: str | None, attempt: int | None, output: Path | None, in_browser: bool
) -> None:
    """Write a report of one run of a task.

    `time` is the time profile: `text` for a terminal, `html` for a browser, `speedscope` for
    https://www.speedscope.app, `session` (the stored file) for pyinstrument's own `Session.from_json`.

    `pprof` of `time` and `allocations` is for `go tool pprof`, Pyroscope, Parca and Grafana, `firefox` for
    https://profiler.firefox.com; `pprof-process` and `firefox-process` of `allocations` cover all threads.

    `allocations` is memray's recording: `tree` and `summary` for a terminal, `flamegraph` and `table` for a browser.
    They show the memory that the task's own thread held at the peak of the process; with `-process` behind the name (as
    in `flamegraph-process`) that of all threads, with `-leaks` the memory that was not freed by the end, with
    `-process-leaks` both. `stats-process` is memray's statistics, `capture` the stored file.

    `memory` is the memory of the process over time: `csv` for a spreadsheet, `html` for a browser, `svg` and `png` as
    pictures, `datum` (the stored file) for gnuplot.

    `logs` is the log of the task, `resources` a table of the processor time, context switches, I/O, open files and
    threads of its process, `accounting` where the whole wall time went, as JSON. They are shown as they are stored.

    `calltree` of `time` and `allocations`, and `chart` of `memory` and `resources`, are JSON for programs.

    \b
    Examples:
      dramatiq-diag report 4c1d7ad2-5b0c-4c9c-b7a6-6c3d2f7be2b2
      dramatiq-diag report 4c1d7ad2-5b0c-4c9c-b7a6-6c3d2f7be2b2 time --format html -o profile.html
      dramatiq-diag report 4c1d7ad2-5b0c-4c9c-b7a6-6c3d2f7be2b2 allocations --format flamegraph -o flamegraph.html
      dramatiq-diag report 4c1d7ad2-5b0c-4c9c-b7a6-6c3d2f7be2b2 memory --open
      dramatiq-diag report 4c1d7ad2 logs
    """
    if in_browser and output is not None:
        raise click.UsageError("--open writes into a file of its own; it cannot be combined with --output.")
    artifact_name, text_format, browser_format = _KINDS[kind]
    format_name = format_name or (browser_format if in_browser else text_format)
    with opened_store(Settings()) as store:
        with store.session() as session:
            run, artifacts = run_with_artifacts(session, task_id, attempt)
        artifact = find_artifact(run, artifacts, artifact_name)
        wanted = format_of(artifact, format_name)
        if output is None and not in_browser:
            _refuse_terminal(wanted)
        with open_download(store, artifact, wanted) as source:
            if in_browser:
                _open(source, wanted)
            else:
                _write(source, output)


def _write(source: BinaryIO, output: Path | None) -> None:
    if output is None:
        if sys.stdout.isatty():
            _write_to_terminal(source)
        else:
            copy(source, sys.stdout.buffer)
        return
    with create(output) as file:
        copy(source, file)
    click.echo(f"Wrote {output}", err=True)


def _write_to_terminal(source: BinaryIO) -> None:
    """Prints a text without control characters: a log may contain any text that the task was given."""
    for line in io.TextIOWrapper(source, "utf-8", "replace"):
        click.echo(printable(line.rstrip("\n").expandtabs()))


def _refuse_terminal(wanted: Format) -> None:
    if sys.stdout.isatty() and wanted.media_type in _NO_TEXT:
        raise click.UsageError(
            f"{wanted.name} cannot be shown in a terminal; write it into a file with -o, or use --open."
        )


def _open(source: BinaryIO, wanted: Format) -> None:
    descriptor, path = tempfile.mkstemp(prefix="dramatiq-diag-", suffix=Path(wanted.filename).suffix)
    with open(descriptor, "wb") as file:
        copy(source, file)
    click.echo(f"Wrote {path}", err=True)
    if click.launch(path):
        raise DiagnosticsError(f"No browser could be started; open {path} yourself.")
