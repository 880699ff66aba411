"""How the commands speak: tables for people, JSON for programs, progress for whoever sits at a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from ..documents.runs import RunDocument
from ..text import format_duration, format_size, printable

#: Of the commands that show one run of a task.
attempt_option = click.option(
    "--attempt", type=click.IntRange(min=1), help="Which attempt; without it the latest that has ended."
)


def echo_json(document: Any) -> None:
    """Prints one JSON document on standard output."""
    click.echo(json.dumps(document, indent=2))


def echo_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints columns, each as wide as its widest cell."""
    cells = [headings, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def run_row(run: RunDocument) -> list[str]:
    """Returns: The cells of a run: status, duration, peak RSS, actor, attempt."""
    return [
        run["status"],
        format_duration(run["duration_ms"]),
        format_size(run["peak_rss_bytes"]),
        run["actor_name"],
        str(run["attempt"]),
    ]


@contextmanager
def bar(label: str, length: int) -> Iterator[Callable[[int], None]]:
    """Shows a progress bar on standard error, if that is a terminal. Yields what is called with each step's size."""
    if not sys.stderr.isatty():
        yield _ignore
        return
    with click.progressbar(length=length, label=label, file=sys.stderr) as shown:
        yield shown.update


@contextmanager
def counter(label: str) -> Iterator[Callable[[int], None]]:
    """Shows a growing number on standard error, if that is a terminal. Yields what is called with the number so far."""
    if not sys.stderr.isatty():
        yield _ignore
        return
    try:
        yield lambda number: click.echo(f"\r{label}: {number}", nl=False, err=True)
    finally:
        click.echo(err=True)


def _ignore(number: int) -> None:
    """Nobody looks."""
