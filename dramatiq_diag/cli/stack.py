"""`stack`: shows what a running task does now, and what it waits for."""

from __future__ import annotations

import click

from ..documents.stacks import StacksDocument, ThreadDocument, take_stacks
from ..settings import Settings
from ..text import format_duration, printable
from .output import echo_heading, echo_json, json_option, shown_time
from .store import opened_store


@click.command()
@click.argument("task_id")
@click.option("--all", "every_thread", is_flag=True, help="The calls of all threads, not only of the task's.")
@json_option("the document of POST /tasks/<id>/stacks/")
def stack(task_id: str, *, every_thread: bool, as_json: bool) -> None:
    """Show what a running task does now: its stack, and what it waits for.

    The worker process is asked over the database and answers within 3 seconds, wherever this command runs. The task
    need not be diagnosed; its worker needs the middleware, with something in TASK_DIAGNOSTICS or
    TASK_DIAGNOSTICS_ON_REQUEST. The innermost call comes first. Exits 1 if no live process executes the task.

    \b
    Examples:
      dramatiq-diag stack 4c1d7ad2-5b0c-4c9c-b7a6-6c3d2f7be2b2
      dramatiq-diag stack 4c1d7ad2-5b0c-4c9c-b7a6-6c3d2f7be2b2 --all
    """
    with opened_store(Settings()) as store:
        document = take_stacks(store, task_id)
    if as_json:
        echo_json(document)
    else:
        echo_stacks(document, every_thread=every_thread)


def echo_stacks(document: StacksDocument, *, every_thread: bool) -> None:
    """Prints the task's threads, and the others with or without their calls."""
    click.echo(f"Task {printable(document['task_id'])} at {shown_time(document['taken_at'])}")
    if document["note"] is not None:
        click.echo(printable(document["note"]))
    for thread in document["threads"]:
        echo_thread(thread, None if thread["is_task"] or every_thread else 0)


def echo_thread(thread: ThreadDocument, calls: int | None) -> None:
    """Prints a thread: what it waits for, and its innermost calls, so many of them or all."""
    echo_heading(_title(thread))
    if thread["wait"] is not None:
        click.echo(f"  {printable(thread['wait']['detail'])}")
    for frame in thread["frames"][:calls]:
        click.echo(f"  {printable(frame['function'])}  {printable(frame['file'])}:{frame['line'] or '?'}")
        if frame["source"]:
            click.echo(f"      {printable(frame['source'])}")


def _title(thread: ThreadDocument) -> str:
    same = f", at the same place for {format_duration(thread['same_for_s'] * 1000)}" if thread["same_for_s"] else ""
    whose = " executes the task" if thread["is_task"] and "task" not in thread["name"] else ""
    return f"{printable(thread['name'])}{whose}: {thread['state'].replace('_', ' ')}{same}"
