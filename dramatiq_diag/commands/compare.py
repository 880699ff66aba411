"""`compare`: two runs side by side."""

from __future__ import annotations

from typing import Any

import click

from ..documents import run_document
from ..printable import printable
from ..reports.calltree import CallTree
from ..reports.comparison import FunctionChange, compare_trees
from ..settings import Settings
from ..units import duration, size
from .figures import (
    Figures,
    Missing,
    change,
    echo_heading,
    echo_missing,
    echo_rows,
    figure,
    figures_of,
    memory_words,
    sparklines,
)
from .output import echo_json
from .show import memory_document
from .store import opened_store

#: The functions that are named.
_ROWS = 15

_ATTEMPT = click.IntRange(min=1)


@click.command()
@click.argument("task_a")
@click.argument("task_b")
@click.option("--attempt-a", type=_ATTEMPT, help="Which attempt of the first; without it the latest that has ended.")
@click.option("--attempt-b", type=_ATTEMPT, help="Which attempt of the second.")
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
def compare(task_a: str, task_b: str, *, attempt_a: int | None, attempt_b: int | None, as_json: bool) -> None:
    """Compare two runs: how long they took, what memory they had, and which functions took more.

    The tables have what got more by itself first. The same task may stand on both sides, with two of its attempts.

    \b
    Examples:
      dramatiq-diag compare 4c1d7ad2-5b0c-4c9c-b7a6-6c3d2f7be2b2 a9e0c1f4-7d55-4ac5-9d2b-0c4f5b1c7e11
      dramatiq-diag compare nightly-import nightly-import --attempt-a 1 --attempt-b 3
    """
    with opened_store(Settings()) as store:
        a, b = figures_of(store, task_a, attempt_a), figures_of(store, task_b, attempt_b)
    if as_json:
        echo_json(_document(a, b))
        return
    for letter, figures in (("A", a), ("B", b)):
        run = run_document(figures.run)
        which = f"{run['actor_name']}, task {run['task_id']}, attempt {run['attempt']}"
        click.echo(f"{letter}: {printable(which)}: {run['status']}, {run['started_at'][:19].replace('T', ' ')} UTC")
    _show_totals(a, b)
    _show_memory(a, b)
    _show_changes("Time", a.time, b.time)
    _show_changes("Allocations of the task's own thread at the peak", a.allocations, b.allocations)


def _document(a: Figures, b: Figures) -> dict[str, Any]:
    return {
        "a": {"run": run_document(a.run), "memory": memory_document(a.memory)},
        "b": {"run": run_document(b.run), "memory": memory_document(b.memory)},
        "time": _changes_document(a.time, b.time),
        "allocations": _changes_document(a.allocations, b.allocations),
    }


def _changes_document(a: CallTree | Missing, b: CallTree | Missing) -> dict[str, Any]:
    if isinstance(a, Missing) or isinstance(b, Missing):
        return {"reason": _reason(a, b)}
    changes = compare_trees(a["tree"], b["tree"])[:_ROWS]
    return {"unit": a["unit"], "a_total": a["total"], "b_total": b["total"], "functions": changes}


def _reason(a: object, b: object) -> str:
    reasons = [f"{name}: {part.reason}" for name, part in (("A", a), ("B", b)) if isinstance(part, Missing)]
    return " ".join(reasons)


def _show_totals(a: Figures, b: Figures) -> None:
    first, second = a.run.run, b.run.run
    echo_heading("Altogether")
    rows = [
        (duration(first.duration_ms), duration(second.duration_ms), "duration"),
        (size(first.peak_rss_bytes), size(second.peak_rss_bytes), "peak memory of the process"),
    ]
    echo_rows(("A", "B", "WHAT"), rows)


def _show_memory(a: Figures, b: Figures) -> None:
    echo_heading("Memory of the process")
    parts = {"A": a.memory, "B": b.memory}
    curves = {letter: samples for letter, samples in parts.items() if not isinstance(samples, Missing)}
    lines = dict(zip(curves, sparklines(*curves.values()) if curves else [], strict=True))
    for letter, samples in parts.items():
        if isinstance(samples, Missing):
            echo_missing(Missing(reason=f"{letter}: {samples.reason}"))
        else:
            click.echo(f"  {letter} {lines[letter]}\n    {memory_words(samples)}")


def _show_changes(title: str, a: CallTree | Missing, b: CallTree | Missing) -> None:
    if isinstance(a, Missing) or isinstance(b, Missing):
        echo_heading(title)
        echo_missing(Missing(reason=_reason(a, b)))
        return
    unit = a["unit"]
    echo_heading(f"{title}: {figure(a['total'], unit)}, then {figure(b['total'], unit)}")
    rows = [_change_row(found, unit) for found in compare_trees(a["tree"], b["tree"])[:_ROWS]]
    echo_rows(("OWN", "A", "B", "WITH CALLS", "FUNCTION"), rows)


def _change_row(found: FunctionChange, unit: str) -> tuple[str, ...]:
    return (
        change(found["difference"], unit),
        figure(found["a_self"], unit),
        figure(found["b_self"], unit),
        change(found["total_difference"], unit),
        f"{found['function']}  {found['file']}",
    )
