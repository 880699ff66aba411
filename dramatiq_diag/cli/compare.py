"""`compare`: compares two runs."""

from __future__ import annotations

import click

from ..documents.run_figures import COMPARED_FIGURES
from ..reports.accounting import label_of
from ..reports.cache import format_of, open_download
from ..reports.comparison import (
    AccountComparison,
    ComparedRun,
    ComparisonDocument,
    MemoryComparison,
    TreeComparison,
    compare_runs,
)
from ..reports.tree_diff import FunctionChange
from ..settings import Settings
from ..store.store import Store
from ..text import format_duration, printable
from .choose import run_with_artifacts
from .figures import format_change, format_figure, memory_summary, sparklines
from .output import echo_figures, echo_heading, echo_json, echo_reason, json_option
from .store import opened_store

#: How many functions are listed.
_ROWS = 15

_ATTEMPT = click.IntRange(min=1)


@click.command()
@click.argument("task_a")
@click.argument("task_b")
@click.option("--attempt-a", type=_ATTEMPT, help="Which attempt of the first; without it the latest that has ended.")
@click.option("--attempt-b", type=_ATTEMPT, help="Which attempt of the second.")
@json_option("the document of GET /compare/")
def compare(task_a: str, task_b: str, *, attempt_a: int | None, attempt_b: int | None, as_json: bool) -> None:
    """Compare two runs: how long they took, what memory they had, where their time went, and which functions took
    more.

    The functions whose own share grew most come first. The same task may stand on both sides, with two of its attempts.
    Where something was not collected or cannot be read here, the reason stands in its place.

    \b
    Examples:
      dramatiq-diag compare 4c1d7ad2-5b0c-4c9c-b7a6-6c3d2f7be2b2 a9e0c1f4-7d55-4ac5-9d2b-0c4f5b1c7e11
      dramatiq-diag compare nightly-import nightly-import --attempt-a 1 --attempt-b 3
    """
    with opened_store(Settings()) as store:
        a, b = _compared(store, task_a, attempt_a), _compared(store, task_b, attempt_b)
        comparison = compare_runs(
            a, b, lambda artifact, name: open_download(store, artifact, format_of(artifact, name))
        )
    if as_json:
        echo_json(comparison.document)
        return
    _show_runs(comparison.document)
    _show_memory(comparison.document["memory"])
    _show_accounts(comparison.document["accounting"])
    _show_changes("Time", comparison.document["time"])
    _show_changes("Allocations of the task's own thread at the peak", comparison.document["allocations"])


def _compared(store: Store, task_id: str, attempt: int | None) -> ComparedRun:
    with store.session() as session:
        run, artifacts = run_with_artifacts(session, task_id, attempt)
    return ComparedRun(run=run, artifacts=artifacts)


def _show_runs(document: ComparisonDocument) -> None:
    a, b = document["a"], document["b"]
    for letter, run in (("A", a), ("B", b)):
        which = f"{run['actor_name']}, task {run['task_id']}, attempt {run['attempt']}"
        click.echo(f"{letter}: {printable(which)}: {run['status']}, {run['started_at'][:19].replace('T', ' ')} UTC")
    echo_heading("Overall")
    echo_figures(("A", "B", "WHAT"), [(figure.text(a), figure.text(b), figure.label) for figure in COMPARED_FIGURES])


def _show_memory(memory: MemoryComparison) -> None:
    echo_heading("Memory of the process")
    curves = {letter: samples for letter, samples in (("A", memory["a"]), ("B", memory["b"])) if samples}
    for (letter, samples), line in zip(curves.items(), sparklines(*curves.values()), strict=True):
        click.echo(f"  {letter} {line}\n    {memory_summary(samples)}")
    echo_reason(memory["reason"])


def _show_accounts(accounts: AccountComparison) -> None:
    if accounts["reason"] is not None:
        echo_heading("Where the time went")
        echo_reason(accounts["reason"])
        return
    in_a, in_b = format_duration(accounts["a_wall_ms"]), format_duration(accounts["b_wall_ms"])
    echo_heading(f"Where the time went: {in_a}, then {in_b}")
    rows = [
        (
            format_change(change["difference_ms"], "ms"),
            format_duration(change["a_ms"]),
            format_duration(change["b_ms"]),
            label_of(change["part"], change["on"]),
        )
        for change in accounts["parts"]
    ]
    echo_figures(("CHANGE", "A", "B", "WHAT"), rows)


def _show_changes(title: str, tree: TreeComparison) -> None:
    if tree["reason"] is not None:
        echo_heading(title)
        echo_reason(tree["reason"])
        return
    unit = tree["unit"]
    echo_heading(f"{title}: {format_figure(tree['a_total'], unit)}, then {format_figure(tree['b_total'], unit)}")
    rows = [_change_row(found, unit) for found in tree["functions"][:_ROWS]]
    echo_figures(("OWN", "A", "B", "WITH CALLS", "FUNCTION"), rows)


def _change_row(found: FunctionChange, unit: str) -> tuple[str, ...]:
    return (
        format_change(found["difference"], unit),
        format_figure(found["a_self"], unit),
        format_figure(found["b_self"], unit),
        format_change(found["total_difference"], unit),
        f"{found['function']}  {found['file']}",
    )
