"""`show`: one run of a task in words."""

from __future__ import annotations

from typing import Any

import click

from ..documents.runs import RunDocument, run_document
from ..reports.calltree import CallTree, FunctionTotals, functions
from ..reports.memory import Sample
from ..settings import Settings
from ..store.attempts import Attempt
from ..store.models import TaskRun
from ..store.runs import children_of, overlapping_runs, parent_of
from ..text import format_duration, printable
from .figures import (
    Figures,
    Missing,
    echo_heading,
    echo_reason,
    echo_rows,
    figure,
    figures_of,
    memory_words,
    sparklines,
)
from .output import attempt_option, echo_json
from .store import opened_store

#: The functions that are named.
_ROWS = 10

#: The columns of runs that have to do with the one that is shown; the first is when they began, seen from that.
_HEADINGS = ("FROM", "DURATION", "STATUS", "TASK")


@click.command()
@click.argument("task_id")
@attempt_option
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
def show(task_id: str, *, attempt: int | None, as_json: bool) -> None:
    """Say what one run of a task did: when and where it ran, how it ended, what sent it, what it sent, what ran
    beside it.

    Then its memory as a line, the functions that took most time by themselves, and those that held most memory at the
    peak. What was not collected, or cannot be read here, says why in its place.

    \b
    Examples:
      dramatiq-diag show 4c1d7ad2-5b0c-4c9c-b7a6-6c3d2f7be2b2
      dramatiq-diag show 4c1d7ad2-5b0c-4c9c-b7a6-6c3d2f7be2b2 --attempt 2 --json
    """
    with opened_store(Settings()) as store:
        figures = figures_of(store, task_id, attempt)
        with store.session() as session:
            others = overlapping_runs(session, figures.run)
            parent, children = parent_of(session, figures.run), children_of(session, figures.run.run_id)
    if as_json:
        tree = {"parent": parent and run_document(parent), "children": [run_document(child) for child in children]}
        echo_json(_document(figures, others) | tree)
        return
    _show_run(run_document(figures.run), figures.attempts, figures.interruption)
    _show_tree(figures.run, parent, children)
    _show_overlapping(figures.run, others)
    echo_heading("Memory of the process")
    _show_memory(figures.memory)
    echo_reason(figures.partial.get("memory_profile"))
    _show_functions("Time", figures.time)
    echo_reason(figures.partial.get("pyinstrument_profile"))
    _show_functions("Allocations of the task's own thread at the peak", figures.allocations)
    echo_reason(figures.partial.get("memray_profile"))


def _document(figures: Figures, others: list[Attempt]) -> dict[str, Any]:
    return {
        "run": run_document(figures.run),
        "attempts": figures.attempts,
        "interruption": figures.interruption,
        "traceback": figures.traceback,
        "beside": [run_document(other) for other in others],
        "memory": _memory_document(figures.memory),
        "time": _tree_document(figures.time),
        "allocations": _tree_document(figures.allocations),
    }


def _memory_document(samples: list[Sample] | Missing) -> dict[str, Any]:
    """Returns: A curve's figures as JSON, or `reason`."""
    if isinstance(samples, Missing):
        return {"reason": samples.reason}
    return {
        "first_bytes": samples[0][1],
        "peak_bytes": max(size_bytes for _, size_bytes in samples),
        "last_bytes": samples[-1][1],
        "samples": len(samples),
    }


def _tree_document(tree: CallTree | Missing) -> dict[str, Any]:
    if isinstance(tree, Missing):
        return {"reason": tree.reason}
    return {"unit": tree["unit"], "total": tree["total"], "functions": functions(tree["tree"])[:_ROWS]}


def _show_run(run: RunDocument, attempts: int, interruption: str | None) -> None:
    click.echo(f"Task {printable(run['task_id'])}: {printable(run['actor_name'])}")
    took = "" if run["duration_ms"] is None else f" after {format_duration(run['duration_ms'])}"
    click.echo(f"  attempt {run['attempt']} of {attempts}: {run['status']}{took}")
    if run["collection_ms"] is not None:
        click.echo(f"  its collectors took another {format_duration(run['collection_ms'])} of the task's thread")
    click.echo(f"  started {run['started_at'][:19].replace('T', ' ')} UTC, queue {printable(run['queue_name'])}")
    click.echo(f"  on {printable(run['hostname'])}, process {run['pid']}, run {run['run_id']}")
    echo_reason(interruption)
    if run["exception"] is not None:
        raised = ": ".join(filter(None, (run["exception"]["type"], run["exception"]["message"])))
        click.echo(f"  raised {printable(raised)}")


def _show_tree(run: TaskRun, parent: Attempt | None, children: list[Attempt]) -> None:
    if parent is not None:
        echo_heading("Sent by")
        echo_rows(_HEADINGS, [_row_of_other(run, parent)])
    elif run.parent_run_id is not None:
        echo_heading("Sent by")
        echo_reason(f"Run {run.parent_run_id}, which is not there any more.")
    if children:
        echo_heading("Sent")
        echo_rows(_HEADINGS, [_row_of_other(run, child) for child in children])


def _show_overlapping(run: TaskRun, others: list[Attempt]) -> None:
    diagnosed = {other.task_id for other in others}
    bare = [task_id for task_id in run.overlapped_task_ids if task_id not in diagnosed]
    if not others and not bare:
        return
    echo_heading("Beside it in the same process")
    rows = [_row_of_other(run, other) for other in others]
    rows += [("-", "-", "not diagnosed", task_id) for task_id in bare]
    echo_rows(_HEADINGS, rows)


def _row_of_other(run: TaskRun, other: TaskRun) -> tuple[str, str, str, str]:
    from_ms = (other.started_at - run.started_at).total_seconds() * 1000
    sign = "+" if from_ms >= 0 else "-"
    name = f"{other.task_id}  {other.actor_name}"
    return f"{sign}{format_duration(abs(from_ms))}", format_duration(other.duration_ms), other.status, name


def _show_memory(samples: list[Sample] | Missing) -> None:
    if isinstance(samples, Missing):
        echo_reason(samples.reason)
        return
    click.echo(f"  {sparklines(samples)[0]}")
    click.echo(f"  {memory_words(samples)}")


def _show_functions(title: str, tree: CallTree | Missing) -> None:
    if isinstance(tree, Missing):
        echo_heading(title)
        echo_reason(tree.reason)
        return
    unit, whole = tree["unit"], tree["total"] or 1
    echo_heading(f"{title}: {figure(tree['total'], unit)}")
    echo_reason(tree.get("note"))
    rows = [
        (
            figure(found["self"], unit),
            f"{100 * found['self'] / whole:.1f} %",
            figure(found["total"], unit),
            f"{found['function']}  {found['file']}{_line_of(found)}",
        )
        for found in functions(tree["tree"])[:_ROWS]
    ]
    echo_rows(("OWN", "SHARE", "WITH CALLS", "FUNCTION"), rows)


def _line_of(found: FunctionTotals) -> str:
    """Returns: The line at which a function took most by itself, as it follows the name of a file."""
    return f":{found['lines'][0][0]}" if found["lines"] else ""
