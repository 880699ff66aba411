"""`watch`: follows a running task in a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import click

from ..documents.live import LiveDocument, LiveState, live_document
from ..errors import DiagnosticsError
from ..settings import Settings
from ..store.store import Store
from ..text import counted, format_duration, format_size, printable
from .figures import BLOCKS, WIDTH
from .output import echo_heading, echo_json, json_option, shown_time
from .parameters import duration_s
from .stack import echo_thread
from .store import opened_store, patiently

#: The lines of the log, the functions and the frames that are printed.
_LOG_LINES = 12
_FUNCTIONS = 8
_FRAMES = 8

#: Clears a terminal, and moves its cursor to the upper left corner.
_CLEAR = "\x1b[H\x1b[2J"

#: Seconds between questions until there is an answer, and the shortest time between views.
_ASKS_EVERY_S = 0.25


class NotRunningError(DiagnosticsError):
    """The task is not running."""


@click.command()
@click.argument("task_id")
@click.option(
    "--interval",
    default="2s",
    callback=lambda _, __, value: duration_s(value),
    show_default=True,
    help="Time between views.",
)
@click.option("--once", is_flag=True, help="Print one view.")
@json_option("the document of GET /tasks/<id>/live/, one on each line,")
@click.pass_context
def watch(context: click.Context, task_id: str, *, interval: float, once: bool, as_json: bool) -> None:
    """Follow a running task: its stack, and what was collected of it so far.

    On a terminal each view replaces the one before. It ends when the task ends, and says how, or with Ctrl-C. Exits 1
    if the task is not running, and with --once if its process does not answer within 10 s.

    \b
    Examples:
      dramatiq-diag watch 4c1d7ad2-5b0c-4c9c-b7a6-6c3d2f7be2b2
      dramatiq-diag watch 4c1d7ad2-5b0c-4c9c-b7a6-6c3d2f7be2b2 --once
    """
    with opened_store(Settings()) as store, suppress(KeyboardInterrupt):  # It is the usual way to end it.
        for document in _views(store, task_id, max(interval, _ASKS_EVERY_S)):
            if as_json:
                echo_json(document, indent=None)
            else:
                _echo_view(document, clears=not once and sys.stdout.isatty())
            if once:
                context.exit(0 if document["taken_at"] is not None or document["state"] == LiveState.ENDED else 1)


def _views(store: Store, task_id: str, interval_s: float) -> Iterator[LiveDocument]:
    """Yields a view whenever it is time for one, and the last one. Raises: NotRunningError when it does not run."""
    document = live_document(store, task_id)
    if document is None or document["state"] == LiveState.ENDED:
        raise NotRunningError(_why_not(task_id, document))
    while document is not None and document["state"] == LiveState.PENDING and document["note"] is None:
        time.sleep(_ASKS_EVERY_S)  # Its worker process looks every 2.5 s; there is nothing to show before.
        document = live_document(store, task_id)
    while document is not None:
        yield document
        if document["state"] == LiveState.ENDED:
            return
        time.sleep(interval_s)
        document = patiently(lambda: live_document(store, task_id))


def _why_not(task_id: str, document: LiveDocument | None) -> str:
    if document is None:
        return (
            f"No live worker process reports that it executes {task_id}, and nothing was ever collected for it. A task "
            "that has just begun is known after 5 s."
        )
    return f"{task_id} is not running: {_end(document)}"


def _end(document: LiveDocument) -> str:
    run = document["run"]
    if run is None:
        return "it has ended; it was not diagnosed, so how is not known."
    return f"it {run['status']} after {format_duration(run['duration_ms'])}. See: dramatiq-diag show {run['task_id']}"


def _echo_view(document: LiveDocument, *, clears: bool) -> None:
    if document["state"] == LiveState.ENDED:
        click.echo(printable(f"{document['task_id']}: {_end(document)}"))
        return
    if clears:
        click.echo(_CLEAR, nl=False)
    _echo_head(document)
    _echo_stack(document)
    _echo_curves(document)
    _echo_profile(document)
    _echo_log(document)
    if not clears:
        click.echo()


def _echo_head(document: LiveDocument) -> None:
    elapsed_s = document["elapsed_s"]
    since = "" if elapsed_s is None else f", {format_duration(elapsed_s * 1000)} after its start"
    name = f"{document['actor_name'] or 'Task'} {document['task_id']}"
    click.echo(f"{printable(name)}: {document['state']}{since}")
    if document["taken_at"] is not None:
        click.echo(f"As of {shown_time(document['taken_at'])}; the process has {format_size(document['rss_bytes'])}.")
    if document["note"] is not None:
        click.echo(printable(document["note"]))


def _echo_stack(document: LiveDocument) -> None:
    stack = document["stack"]
    for thread in stack["threads"] if stack is not None else ():
        if thread["is_task"]:
            echo_thread(thread, _FRAMES)


def _echo_curves(document: LiveDocument) -> None:
    memory, resources = document["memory"], document["resources"]
    if memory is not None:
        sizes = [size for _, size in memory["curve"]]
        echo_heading(f"Memory so far: {format_size(sizes[-1])}, at most {format_size(max(sizes))}")
        click.echo(f"  {_bars(sizes)}")
    if resources is not None and resources["rows"]:
        echo_heading("Resources so far")
        for name, figure in list(zip(resources["columns"], resources["rows"][-1], strict=False))[1:]:
            click.echo(f"  {printable(name.replace('_', ' '))}: {'-' if figure is None else f'{figure:g}'}")


def _bars(sizes: list[int]) -> str:
    """Returns: A curve as a text; the lowest bar stands for 0."""
    count = min(WIDTH, len(sizes))
    chosen = [sizes[(at + 1) * len(sizes) // count - 1] for at in range(count)]
    most = max(chosen) or 1
    return "".join(BLOCKS[round(size / most * (len(BLOCKS) - 1))] for size in chosen)


def _echo_profile(document: LiveDocument) -> None:
    profile = document["profile"]
    if profile is None or not profile["functions"]:
        return
    echo_heading(f"Time so far: {counted(profile['samples'], 'sample')}")
    for function in profile["functions"][:_FUNCTIONS]:
        place = f"{function['function']}  {function['file']}:{function['line']}"
        own = format_duration(function["self_s"] * 1000)
        click.echo(f"  {function['share'] * 100:5.1f} %  {own:>10}  {printable(place)}")


def _echo_log(document: LiveDocument) -> None:
    log = document["log"]
    if log is None or not log["text"]:
        return
    lines = log["text"].splitlines()
    echo_heading("Log so far" if len(lines) <= _LOG_LINES and not log["is_cut"] else "The end of the log")
    for line in lines[-_LOG_LINES:]:
        click.echo(f"  {printable(line)}")
