"""A real leaking actor is found, and the allocation profile that is asked for then names its line."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from dramatiq_diag import Settings
from dramatiq_diag.insights.stored_leaks import read_leaks
from dramatiq_diag.maintenance.leak_captures import capture_leaks
from dramatiq_diag.reports.memray import View
from dramatiq_diag.runtime.heap import HeapReader
from dramatiq_diag.statuses import LeakVerdict
from dramatiq_diag.store.runs import RunFilter, list_runs
from dramatiq_diag.worker.tuning import Tuning
from support import eventually, missing

pytest.importorskip("memray")

SOON = Tuning(attention_s=0.1, heap_window_s=0.0, heap_look_s=0.0, heap_share=1.0, heap_window_runs=5)

_kept: list[list[float]] = []


@pytest.fixture(autouse=True)
def known() -> Any:
    if HeapReader().read() is None:
        missing("The live memory is not known here", "glibc 2.33 and CPython's own allocator")
    yield
    _kept.clear()


def leak() -> None:
    _kept.append([float(number) for number in range(2000)])  # The planted line: 16 KB of list, and 48 KB of numbers.


def churn() -> None:
    sum(float(number) for number in [*range(3000)])


def rest() -> None:
    pass


def test_the_allocation_profile_of_the_suspect_names_the_planted_line(
    bench: Any, settings: Callable[..., Settings], store_of: Any, stored: Any
) -> None:
    given = settings(task_diagnostics_on_request=["memray"])
    store = store_of(given)
    with bench(given, threads=2, tuning=SOON) as tasks:
        actors = [tasks.actor(function) for function in (leak, churn, rest)]
        turns = itertools.cycle(actors)

        def send_more() -> None:
            actor = next(turns)  # A batch is mostly of one actor, as most queues have it.
            for other in actors:
                for _ in range(20 if other is actor else 2):
                    other.send()
            tasks.finish()

        def leaking() -> list[str]:
            send_more()
            with store.session() as session:
                found = read_leaks(session).findings
            return [one.actor_name for one in found if one.verdict is LeakVerdict.LEAKS]

        # When it has run for a while, it is found, and no other
        assert eventually(leaking, "the leaking actor is found") == ["leak"]

        # And the next runs of it are captured
        (made,) = capture_leaks(store).made

        def captured() -> Any:
            send_more()
            with store.session() as session:
                runs, _ = list_runs(session, RunFilter(capture_id=made.capture.capture_id), 10)
            # Of two runs at once only one can have the process's one Tracker.
            return [run for run in runs if stored(given).artifacts(run.task_id)["memray_profile"].blob_name is not None]

        runs = eventually(captured, "a run is captured")

    # Then the report of what was not freed has the line
    path = stored(given).path(runs[0].task_id, "memray_profile")
    report = io.BytesIO()
    View(report="tree", leaks=True).render(str(path), report)
    text = report.getvalue().decode()
    line = leak.__code__.co_firstlineno + 1
    assert f"test_leaks.py:{line}" in text, text
    largest = max((row for row in text.splitlines()[1:] if "test_leaks.py" in row), key=_size)
    assert f"test_leaks.py:{line}" in largest


def _size(row: str) -> float:
    """Returns: The bytes at the beginning of a row of the tree."""
    number, unit = row.replace("─", " ").replace("└", " ").replace("├", " ").replace("│", " ").split()[:2]
    return float(number) * {"B": 1, "KiB": 1024, "MiB": 1024**2}[unit]
