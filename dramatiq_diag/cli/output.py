"""Prints tables for people, JSON for programs and progress for a terminal, and has the options that commands share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from ..documents.run_figures import figures_of_list
from ..documents.runs import RunDocument
from ..statuses import MemoryRole
from ..store.runs import Sort
from ..text import printable

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])

#: A table's headings, each with the text of its cell in a row.
Columns = Mapping[str, Callable[[T], str]]

#: The most characters of an actor's name in a table.
_NAME_WIDTH = 48

attempt_option = click.option(
    "--attempt", type=click.IntRange(min=1), help="Which attempt; without it the latest that has ended."
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask; needed where there is no terminal to ask at.")


def json_option(content: str) -> Callable[[Command], Command]:
    """Returns: The option `--json` of a command that can print this content as one JSON document."""
    return click.option("--json", "as_json", is_flag=True, help=f"Print {content} as JSON.")


def echo_json(document: Any, indent: int | None = 2) -> None:
    """Prints one JSON document on standard output; without an indent on one line."""
    click.echo(json.dumps(document, indent=indent))


def echo_table(columns: Columns[T], rows: Iterable[T]) -> None:
    """Prints columns, each as wide as its widest cell."""
    cells = [list(columns), *([printable(cell(row)) for cell in columns.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def echo_heading(text: str) -> None:
    """Prints the heading of a section."""
    click.echo(f"\n{text}")


def echo_reason(reason: str | None) -> None:
    """Prints why a section is missing or incomplete, if there is a reason."""
    if reason is not None:
        click.echo(f"  {printable(' '.join(reason.split()))}")


def echo_figures(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints columns of figures, aligned to the right, and a name in the last column."""
    cells = [headings, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings) - 1)]
    for *figures, name in cells:
        aligned = "  ".join(figure.rjust(width) for figure, width in zip(figures, widths, strict=True))
        click.echo(f"  {aligned}  {printable(name)}")


def shown_time(text: str | None) -> str:
    """Returns: A moment of a document to the second; `-` for None."""
    return "-" if text is None else f"{text[:19]}Z"


def status_text(status: str, memory_role: str | None) -> str:
    """Returns: The status of a run, and the part that it had in the death of its process."""
    return status if memory_role is None else f"{status}, {MemoryRole(memory_role).label}"


def shown_name(name: str) -> str:
    """Returns: The name of an actor for a table, in which a long one would widen all rows; it is whole in JSON."""
    safe = printable(name)
    return safe if len(safe) <= _NAME_WIDTH else f"{safe[: _NAME_WIDTH - 1]}…"


def run_columns(sort: Sort = Sort.NEWEST) -> Columns[RunDocument]:
    """Returns: The columns of a list of runs in an order."""
    return {
        "STARTED": lambda run: shown_time(run["started_at"]),
        "STATUS": lambda run: "stuck" if run["is_stuck"] else status_text(run["status"], run["memory_role"]),
        **{(figure.heading or "").upper(): figure.text for figure in figures_of_list(sort)},
        "ACTOR": lambda run: shown_name(run["actor_name"]),
        "ATTEMPT": lambda run: str(run["attempt"]),
        "TASK ID": lambda run: run["task_id"],
    }


def confirm(question: str, *, yes: bool) -> None:
    """Asks at the terminal, unless the answer was given as an option.

    Raises:
      click.Abort: When the answer is no.
      click.UsageError: When there is no terminal.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask at; confirm with --yes.")
    click.confirm(question, abort=True)


@contextmanager
def bar(label: str, length: int) -> Iterator[Callable[[int], None]]:
    """Shows a progress bar on standard error, if that is a terminal. Yields a function that takes each step's size."""
    if not sys.stderr.isatty():
        yield _ignore
        return
    with click.progressbar(length=length, label=label, file=sys.stderr) as shown:
        yield shown.update


@contextmanager
def counter(label: str) -> Iterator[Callable[[int], None]]:
    """Shows a growing number on standard error, if that is a terminal. Yields a function that takes the number."""
    if not sys.stderr.isatty():
        yield _ignore
        return
    try:
        yield lambda number: click.echo(f"\r{label}: {number}", nl=False, err=True)
    finally:
        click.echo(err=True)


def _ignore(number: int) -> None:
    pass
