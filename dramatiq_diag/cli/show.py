"""`show`: prints one run of a task with its memory, where its time went, its functions and its allocations."""

from __future__ import annotations

from textwrap import fill, indent
from typing import Any

import click

from ..documents.attachments import AttachmentDocument, attachment_document
from ..documents.run_figures import RUN_FIGURES
from ..documents.runs import RunDocument, run_document
from ..documents.signing import Signer
from ..reports.accounting import Account, label_of
from ..reports.calltree import CallTree, FunctionTotals, functions
from ..reports.memory import Sample
from ..settings import Settings
from ..store.attachments import attachments_of
from ..store.attempts import Attempt
from ..store.models import TaskRun
from ..store.runs import children_of, overlapping_runs, parent_of
from ..text import format_duration, format_size, printable
from .artifacts import DEFAULT_BASE_URL
from .figures import Figures, format_figure, memory_summary, read_figures, sparklines
from .output import attempt_option, echo_figures, echo_heading, echo_json, echo_reason, json_option, status_text
from .store import opened_store

#: How many functions are listed.
_ROWS = 10

#: The columns of related runs; the first is their start, relative to the shown run.
_HEADINGS = ("FROM", "DURATION", "STATUS", "TASK")


@click.command()
@click.argument("task_id")
@attempt_option
@json_option("all of it")
def show(task_id: str, *, attempt: int | None, as_json: bool) -> None:
    """Show one run of a task: when and where it ran, how it ended, which run sent it, which tasks it sent, and which
    tasks ran beside it.

    Then its memory as a curve, where its time went, the functions that took most time by themselves, those that held
    most memory at the peak, and what was attached to it while it ran. Where something was not collected or cannot be
    read here, the reason stands in its place.

    \b
    Examples:
      dramatiq-diag show 4c1d7ad2-5b0c-4c9c-b7a6-6c3d2f7be2b2
      dramatiq-diag show 4c1d7ad2-5b0c-4c9c-b7a6-6c3d2f7be2b2 --attempt 2 --json
    """
    settings = Settings()
    with opened_store(settings) as store:
        figures = read_figures(store, task_id, attempt)
        run = figures.run
        with store.session() as session:
            others = overlapping_runs(session, run)
            parent, children = parent_of(session, run), children_of(session, run.run_id)
            standings = attachments_of(session, run.run_id)
    signer, base_url = Signer(settings), settings.public_url or DEFAULT_BASE_URL
    attached = [attachment_document(standing, signer, base_url) for standing in standings]
    if as_json:
        tree = {"parent": parent and run_document(parent), "children": [run_document(child) for child in children]}
        echo_json(_document(figures, others) | tree | {"attachments": attached})
        return
    _show_run(run_document(figures.run), figures, settings.url_of_trace(run.trace_id))
    _show_tree(run, parent, children)
    _show_overlapping(run, others)
    _show_memory(figures.memory)
    echo_reason(figures.partial.get("memory_profile"))
    _show_account(figures.account)
    echo_reason(figures.partial.get("time_accounting"))
    names = {name for attachment in attached for name in attachment["urls"]}
    below = "Of a part of the run there is one; see what was attached, below."
    _show_functions("Time", figures.time)
    echo_reason(figures.partial.get("pyinstrument_profile"))
    echo_reason(below if isinstance(figures.time, str) and "pyinstrument_profile" in names else None)
    _show_functions("Allocations of the task's own thread at the peak", figures.allocations)
    echo_reason(figures.partial.get("memray_profile"))
    echo_reason(below if isinstance(figures.allocations, str) and "memray_profile" in names else None)
    _show_attached(run, attached)


def _document(figures: Figures, others: list[Attempt]) -> dict[str, Any]:
    return {
        "run": run_document(figures.run),
        "attempts": figures.attempts,
        "interruption": figures.interruption,
        "traceback": figures.traceback,
        "beside": [run_document(other) for other in others],
        "memory": _memory_document(figures.memory),
        "accounting": {"reason": figures.account} if isinstance(figures.account, str) else figures.account,
        "time": _tree_document(figures.time),
        "allocations": _tree_document(figures.allocations),
    }


def _memory_document(samples: list[Sample] | str) -> dict[str, Any]:
    if isinstance(samples, str):
        return {"reason": samples}
    return {
        "first_bytes": samples[0][1],
        "peak_bytes": max(size_bytes for _, size_bytes in samples),
        "last_bytes": samples[-1][1],
        "samples": len(samples),
    }


def _tree_document(tree: CallTree | str) -> dict[str, Any]:
    if isinstance(tree, str):
        return {"reason": tree}
    return {"unit": tree["unit"], "total": tree["total"], "functions": functions(tree["tree"])[:_ROWS]}


def _show_run(run: RunDocument, figures: Figures, trace_url: str | None) -> None:
    click.echo(f"Task {printable(run['task_id'])}: {printable(run['actor_name'])}")
    took = "" if run["duration_ms"] is None else f" after {format_duration(run['duration_ms'])}"
    click.echo(
        f"  attempt {run['attempt']} of {figures.attempts}: {status_text(run['status'], run['memory_role'])}{took}"
    )
    if run["is_stuck"]:
        click.echo("  it is stuck: it has lasted much longer than its actor usually takes")
    click.echo(f"  started {run['started_at'][:19].replace('T', ' ')} UTC, queue {printable(run['queue_name'])}")
    click.echo(f"  on {printable(run['hostname'])}, process {run['pid']}, run {run['run_id']}")
    if run["release"] is not None:
        click.echo(f"  release {printable(run['release'])}")
    for figure in RUN_FIGURES:
        is_above = figure.field == "duration_ms"
        if not is_above and run[figure.field] is not None:  # type: ignore[literal-required]
            click.echo(f"  {figure.label}: {figure.text(run)}")
            if figure.meaning:
                click.echo(indent(fill(figure.meaning, 100), "      "))
    if run["trace_id"] is not None:
        click.echo(f"  part of trace {trace_url or run['trace_id']}")
    echo_reason(run["death_reason"])
    echo_reason(figures.interruption)
    if run["exception"] is not None:
        raised = ": ".join(filter(None, (run["exception"]["type"], run["exception"]["message"])))
        click.echo(f"  raised {printable(raised)}")


def _show_tree(run: TaskRun, parent: Attempt | None, children: list[Attempt]) -> None:
    if run.parent_run_id is not None:
        echo_heading("Sent by")
        if parent is None:
            echo_reason(f"Run {run.parent_run_id}, which no longer exists.")
        else:
            echo_figures(_HEADINGS, [_related(run, parent)])
    if children:
        echo_heading("Sent")
        echo_figures(_HEADINGS, [_related(run, child) for child in children])


def _show_overlapping(run: TaskRun, others: list[Attempt]) -> None:
    diagnosed = {other.task_id for other in others}
    rows = [_related(run, other) for other in others]
    rows += [("-", "-", "not diagnosed", task) for task in run.overlapped_task_ids if task not in diagnosed]
    if rows:
        echo_heading("Beside it in the same process")
        echo_figures(_HEADINGS, rows)


def _related(run: TaskRun, other: TaskRun) -> tuple[str, str, str, str]:
    from_ms = (other.started_at - run.started_at).total_seconds() * 1000
    start = f"{'+' if from_ms >= 0 else '-'}{format_duration(abs(from_ms))}"
    return (
        start,
        format_duration(other.duration_ms),
        status_text(other.status, other.memory_role),
        f"{other.task_id}  {other.actor_name}",
    )


def _show_memory(samples: list[Sample] | str) -> None:
    echo_heading("Memory of the process")
    if isinstance(samples, str):
        echo_reason(samples)
    else:
        click.echo(f"  {sparklines(samples)[0]}\n  {memory_summary(samples)}")


def _show_account(account: Account | str) -> None:
    if isinstance(account, str):
        echo_heading("Where the time went")
        echo_reason(account)
        return
    echo_heading(f"Where the time went: {format_duration(account['wall_ms'])}")
    whole_ms = account["wall_ms"] or 1
    rows = [
        (format_duration(part["ms"]), f"{100 * part['ms'] / whole_ms:.1f} %", label_of(part["part"], part["on"]))
        for part in account["parts"]
    ]
    echo_figures(("TIME", "SHARE", "WHAT"), rows)
    if account["neighbours"]:
        others = account["neighbours"]
        is_for_loop = any(other["loop_ms"] is not None for other in others)
        echo_heading(f"Tasks that used the CPU {'or kept the event loop ' * is_for_loop}meanwhile")
        figures = [
            (
                "-" if other["loop_ms"] is None else format_duration(other["loop_ms"]),
                format_duration(other["cpu_ms"]),
                f"{100 * other['cpu_ms'] / whole_ms:.1f} %",
                f"{other['task_id']}  {other['actor_name']}",
            )
            for other in others[:_ROWS]
        ]
        first = 0 if is_for_loop else 1
        headings = ("KEPT THE LOOP", "CPU", "OF ITS TIME", "TASK")
        echo_figures(headings[first:], [row[first:] for row in figures])


def _show_functions(title: str, tree: CallTree | str) -> None:
    if isinstance(tree, str):
        echo_heading(title)
        echo_reason(tree)
        return
    unit, whole = tree["unit"], tree["total"] or 1
    echo_heading(f"{title}: {format_figure(tree['total'], unit)}")
    echo_reason(tree.get("note"))
    rows = [
        (
            format_figure(found["self"], unit),
            f"{100 * found['self'] / whole:.1f} %",
            format_figure(found["total"], unit),
            f"{found['function']}  {found['file']}{_line_of(found)}",
        )
        for found in functions(tree["tree"])[:_ROWS]
    ]
    echo_figures(("OWN", "SHARE", "WITH CALLS", "FUNCTION"), rows)


def _show_attached(run: TaskRun, attached: list[AttachmentDocument]) -> None:
    if not attached:
        return
    echo_heading("Attached while it ran")
    for attachment in attached:
        names = ", ".join(attachment["diagnostics"])
        click.echo(f"  {attachment['attachment_id']}: {printable(names)}, {attachment['state']}")
        echo_reason(attachment["reason"])
        for artifact in attachment["artifacts"]:
            text = f"{artifact['name']}: {artifact['status']}, {artifact['filename']}"
            click.echo(f"    {text}, {format_size(artifact['size_bytes'])}")
    if any(attachment["urls"] for attachment in attached):
        click.echo(f"  To get the files: dramatiq-diag artifacts {printable(run.task_id)} --download DIR")


def _line_of(found: FunctionTotals) -> str:
    """Returns: `:` and the line at which the function took most by itself, to follow the name of a file."""
    return f":{found['lines'][0][0]}" if found["lines"] else ""
