"""The view of a running task: its stack, curves, log and time profile so far, on its page or on one of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import falcon

from ...documents.live import LiveDocument, live_document
from ...reports.paths import shorten_paths
from ...store.questions import TooManyQuestionsError
from ...text import format_size
from ..backend import Backend
from .attach import attach_values
from .sparklines import line_through

#: The columns of the resources that are drawn, with their titles; counters are drawn as they grow.
_RESOURCES = {
    "cpu_user_seconds": ("CPU, user", "{:.2f} s"),
    "cpu_system_seconds": ("CPU, system", "{:.2f} s"),
    "read_bytes": ("Read", None),
    "written_bytes": ("Written", None),
    "open_files": ("Open files", "{:.0f}"),
    "threads": ("Threads", "{:.0f}"),
}


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A small drawing of a figure over the time of the run."""

    title: str
    points: str
    "The points of an SVG polyline."
    now: str
    "The last value, for a person."
    most: str


def show_live(backend: Backend, req: falcon.Request, resp: falcon.Response, document: LiveDocument) -> None:
    """Answers with a page that has nothing but the view."""
    backend.show(req, resp, "live.html", **live_values(document), **attach_values(backend, document["task_id"]))


def read_live(backend: Backend, task_id: str, attempt: int | None) -> dict[str, Any]:
    """Returns: The variables of the view of a task, of which `live` is None where there is nothing to view."""
    try:
        document = live_document(backend.store, task_id, attempt)
    except TooManyQuestionsError:  # Many watch other tasks of the process; the page says what its rows say.
        document = None
    return {"live": None} if document is None else live_values(document)


def live_values(document: LiveDocument) -> dict[str, Any]:
    """Returns: The variables of the view's template."""
    return {
        "live": document,
        "live_files": shorten_paths(_files(document)),
        "live_memory": _memory(document),
        "live_resources": _resources(document),
    }


def _files(document: LiveDocument) -> set[str]:
    files = set()
    if document["stack"] is not None:
        files |= {frame["file"] for thread in document["stack"]["threads"] for frame in thread["frames"]}
    if document["profile"] is not None:
        files |= {function["file"] for function in document["profile"]["functions"]}
    return files


def _memory(document: LiveDocument) -> Curve | None:
    memory = document["memory"]
    return None if memory is None else _curve("RSS", memory["curve"], None)


def _resources(document: LiveDocument) -> list[Curve]:
    resources = document["resources"]
    if resources is None:
        return []
    columns = resources["columns"]
    curves = []
    for name, (title, unit) in _RESOURCES.items():
        at = columns.index(name) if name in columns else 0
        points = [(row[0], row[at]) for row in resources["rows"] if row[0] is not None and row[at] is not None]
        if at and points:
            curves.append(_curve(title, points, unit))  # type: ignore[arg-type]
    return curves


def _curve(title: str, points: Sequence[tuple[float, float]], unit: str | None) -> Curve:
    def show(value: float) -> str:
        return format_size(value) if unit is None else unit.format(value)

    return Curve(
        title=title,
        points=line_through(points),
        now=show(points[-1][1]),
        most=show(max(value for _, value in points)),
    )
